import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import type { CommitmentDefinition } from "../../src/commitment.ts";
import { type AnyCommitment, defineCommitment, pending } from "../../src/index.ts";
import { isPending } from "../../src/pending.ts";

interface Mail {
  readonly to: string;
}
type Definition = CommitmentDefinition<Mail, { id: string }>;

const definition = (changes: Partial<Definition> = {}): Definition => ({
  name: "mail.send",
  version: 1,
  sideEffectClass: "external_message",
  approvalClass: "A1",
  reversibilityClass: "R2",
  sensitivityClass: "S1",
  input: z.object({ to: z.string() }),
  output: z.object({ id: z.string() }),
  execute: async () => ({ id: "m-1" }),
  ...changes,
});

/** As a JavaScript caller may declare it, past the types. */
const declare = (changes: Record<string, unknown>) =>
  defineCommitment({ ...definition(), ...changes } as unknown as Definition);

const refusal = (said: RegExp) =>
  expect.objectContaining({ code: "DEFINITION_INVALID", message: expect.stringMatching(said) });

const context = {
  idempotencyKey: "k",
  intentId: "i",
  threadId: "t",
  correlationId: "c",
  attempt: 1,
  signal: new AbortController().signal,
  traceparent: undefined,
};

describe("defineCommitment", () => {
  it("fills in what is left out", () => {
    const commitment = defineCommitment(definition());
    expect(commitment).toMatchObject({
      workflowKey: "mail.send@1",
      classes: { actionClass: "gated" },
      semantics: "at-least-once",
      retry: { maxAttempts: 5, initialIntervalMs: 500, backoff: 2, maxIntervalMs: 60_000 },
      timeoutMs: 30_000,
      decisionTimeoutMs: 48 * 3_600_000,
      pollIntervalMs: 30_000,
      idempotencyKey: undefined,
    });
    expect(commitment.approvers({ to: "a" })).toEqual({});
    expect(commitment.summary({ to: "a" })).toBe("mail.send");
    expect(commitment.handlers.compensate).toBeUndefined();
  });

  it("keeps what is declared", () => {
    const commitment = defineCommitment(
      definition({
        actionClass: "gated",
        semantics: "at-most-once",
        retry: { maxAttempts: 2 },
        timeoutMs: 1,
        decisionTimeoutMs: 2,
        pollIntervalMs: 3,
        maxConcurrency: 4,
        approvers: ({ to }) => ({ roles: [[to]] }),
        idempotencyKey: ({ to }) => `to ${to}`,
        summary: ({ to }) => `a mail to ${to}`,
      }),
    );
    expect(commitment).toMatchObject({ timeoutMs: 1, decisionTimeoutMs: 2, pollIntervalMs: 3, maxConcurrency: 4 });
    expect(commitment.semantics).toBe("at-most-once");
    expect(commitment.retry).toEqual({ maxAttempts: 2, initialIntervalMs: 500, backoff: 2, maxIntervalMs: 60_000 });
    expect(commitment.approvers({ to: "a" })).toEqual({ roles: [["a"]] });
    expect(commitment.idempotencyKey?.({ to: "a" })).toBe("to a");
    expect(commitment.summary({ to: "a" })).toBe("a mail to a");
  });

  it("takes fixed approvers, too", () => {
    const commitment = defineCommitment(definition({ approvers: { minApprovers: 3 } }));
    expect(commitment.approvers({ to: "a" })).toEqual({ minApprovers: 3 });
  });

  it("leaves nothing to change afterwards", () => {
    const commitment = defineCommitment(definition()) as { classes: unknown; handlers: { execute: unknown } };
    expect(() => {
      commitment.classes = {};
    }).toThrow(TypeError);
    expect(() => {
      commitment.handlers.execute = () => {};
    }).toThrow(TypeError);
    expect(() => Object.assign(commitment.classes as object, { approvalClass: "A0" })).toThrow(TypeError);
  });
});

describe("defineCommitment refuses", () => {
  it.each(["", "Mail.send", "mail send", "mail..send", ".mail", "mail-", "countersign.timer", undefined, 7])(
    "the name %o",
    (name) => {
      expect(() => declare({ name })).toThrow(refusal(/no proper name/));
    },
  );

  it.each([0, -1, 1.5, "1", undefined])("the version %o", (version) => {
    expect(() => declare({ version })).toThrow(refusal(/no version/));
  });

  it.each([
    ["sideEffectClass", undefined],
    ["sideEffectClass", "none"],
    ["sideEffectClass", "external"],
    ["approvalClass", undefined],
    ["approvalClass", "A4"],
    ["approvalClass", "A1 "],
    ["reversibilityClass", undefined],
    ["reversibilityClass", "R9"],
    ["sensitivityClass", undefined],
    ["sensitivityClass", "secret"],
  ])("a %s of %o (rule 3)", (name, value) => {
    expect(() => declare({ [name]: value })).toThrow(refusal(new RegExp(`no ${name}`)));
  });

  it.each(["B", "none", "Gated", ""])("the action class %o, which nobody knows", (actionClass) => {
    expect(() => declare({ sideEffectClass: "internal_write", actionClass })).toThrow(refusal(/actionClass/));
  });

  it.each([
    ["an external effect that is not gated", { actionClass: "auto" }],
    ["an external commitment that is not R3", { sideEffectClass: "external_commitment", reversibilityClass: "R2" }],
    ["A0 with an external effect", { approvalClass: "A0", reversibilityClass: "R0" }],
    ["A0 with R2", { sideEffectClass: "internal_write", approvalClass: "A0", reversibilityClass: "R2" }],
    ["A0 with R3", { sideEffectClass: "internal_write", approvalClass: "A0", reversibilityClass: "R3" }],
    [
      "A0 with class C",
      { sideEffectClass: "internal_write", approvalClass: "A0", reversibilityClass: "R0", actionClass: "forbidden" },
    ],
  ])("%s (rule 10)", (_name, changes) => {
    expect(() => declare(changes)).toThrow(refusal(/contradicts itself/));
  });

  it.each(["timeoutMs", "decisionTimeoutMs", "pollIntervalMs", "maxConcurrency"])(
    "a %s that makes no sense",
    (option) => {
      for (const value of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, "30000"]) {
        expect(() => declare({ [option]: value }), String(value)).toThrow(refusal(new RegExp(option)));
      }
    },
  );

  it("a retry policy that makes no sense", () => {
    expect(() => declare({ retry: { maxAttempts: 0 } })).toThrow(refusal(/retry policy/));
  });

  it.each([
    ["semantics", "at-most-onec"],
    ["execute", undefined],
    ["input", undefined],
    ["output", { parse: () => {} }],
    ["compensate", "void"],
    ["reconcile", true],
    ["poll", {}],
  ])("a %s of %o, which would be found out only when it is needed", (name, value) => {
    expect(() => declare({ [name]: value })).toThrow(refusal(new RegExp(name)));
  });
});

describe("a handler", () => {
  const asked: unknown[] = [];
  const commitment: AnyCommitment = defineCommitment(
    definition({
      execute: async (input) => {
        asked.push(["execute", input]);
        return { id: "m-1" };
      },
      compensate: async (done) => asked.push(["compensate", done]),
      reconcile: async () => ({ status: "unknown" }),
      poll: async () => ({ status: "pending" }),
    }),
  );
  const { handlers } = commitment;
  const calls: readonly [string, () => Promise<unknown> | undefined][] = [
    ["execute", () => handlers.execute({ to: "a" }, context)],
    [
      "compensate",
      () =>
        handlers.compensate?.(
          { idempotencyKey: "k", input: {}, output: undefined, externalRef: undefined, reason: "" },
          context,
        ),
    ],
    ["reconcile", () => handlers.reconcile?.({ idempotencyKey: "k", input: {} }, context)],
    ["poll", () => handlers.poll?.({ externalRef: "r", input: {} }, context)],
  ];

  it.each(calls)("can be called by a backend: %s", async (_name, call) => {
    await expect(call()).resolves.toBeDefined();
  });

  it.each(calls)("cannot be called inside a graph run: %s", async (name, call) => {
    asked.length = 0;
    const State = Annotation.Root({ said: Annotation<unknown> });
    const graph = new StateGraph(State)
      .addNode("cheat", async () => ({ said: await call()?.catch((error: unknown) => error) }))
      .addEdge(START, "cheat")
      .addEdge("cheat", END)
      .compile();
    const { said } = await graph.invoke({});
    expect(said).toMatchObject({ code: "BOUNDARY", facts: { handler: `mail.send.${name}` } });
    expect(asked).toEqual([]);
  });
});

it("knows the answer pending() from every other answer", () => {
  const expiresAt = new Date(0);
  expect(pending({ externalRef: "r-1", expiresAt })).toMatchObject({ externalRef: "r-1", expiresAt });
  expect(isPending(pending({ externalRef: "r-1" }))).toBe(true);
  expect([null, undefined, "pending", { externalRef: "r-1" }, []].map(isPending)).toEqual([
    false,
    false,
    false,
    false,
    false,
  ]);
});

it.each([
  { externalRef: "" },
  { externalRef: "a\u0000b" },
  { externalRef: "\ud800" },
  { externalRef: 7 as never },
  { externalRef: "env", expiresAt: new Date("never") },
])("pending() refuses what could not be kept: %o", (answer) => {
  expect(() => pending(answer)).toThrow(expect.objectContaining({ code: "INPUT_INVALID" }));
});
