import { randomUUID } from "node:crypto";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { afterAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { postgres } from "../../src/backends/postgres/index.ts";
import {
  type Countersign,
  type CountersignError,
  commitAll,
  countersign,
  defineGraph,
  type ExecutionIntent,
  requestDecision,
  type StartOptions,
  waitForEvent,
} from "../../src/index.ts";
import { moveClock } from "../../src/testing/clock.ts";
import { testDatabase } from "../support/database.ts";
import { everything, graphOf, letter, onlyOne, sent } from "../support/requests.ts";
import { insertIntent, insertThread } from "../support/rows.ts";

const { pool } = await testDatabase();

const mia = { id: "mia", roles: ["manager"] };
const max = { id: "max", roles: ["manager"] };
const hana = { id: "hana", roles: ["head"] };
const lou = { id: "lou", roles: ["legal"] };

const HOUR_MS = 3_600_000;
const hello = { to: "a@example.org", text: "hello" };
const two = { approvalClass: "A2" } as const;

const graphs = {
  one: graphOf(letter("letter.one")),
  two: graphOf(letter("letter.two", two)),
  free: graphOf(
    letter("letter.free", { sideEffectClass: "internal_write", approvalClass: "A0", reversibilityClass: "R1" }),
  ),
  keyed: graphOf(letter("letter.keyed", { idempotencyKey: ({ to }) => `letter to ${to}` })),
  demanding: graphOf(letter("letter.demanding"), { approvers: { roles: [["cfo"]] } }),
  lowering: graphOf(letter("letter.lowering", { approvers: { minApprovers: 3 } }), {
    approvers: { minApprovers: 1, roles: [] },
  }),
};

const first = letter("pair.first");
const second = letter("pair.second", two);
const pair = defineGraph({
  name: "pair",
  version: 1,
  durability: "durable",
  commitments: [first, second],
  graph: new StateGraph(Annotation.Root({ statuses: Annotation<string[]> }))
    .addNode("both", async () => {
      const outcomes = await commitAll([
        { commitment: first, input: hello },
        { commitment: second, input: hello },
      ]);
      return { statuses: outcomes.map((outcome) => outcome.status) };
    })
    .addEdge(START, "both")
    .addEdge("both", END),
});

const Asking = Annotation.Root({ editable: Annotation<boolean>, answer: Annotation<unknown> });
const asking = defineGraph({
  name: "asking",
  version: 1,
  durability: "durable",
  graph: new StateGraph(Asking)
    .addNode("ask", async ({ editable }) => {
      const schema = z.object({ limit: z.number().max(100) });
      const answer = await requestDecision({
        name: "budget.approve",
        payload: { limit: 10 },
        ...(editable ? { schema } : {}),
      });
      return { answer };
    })
    .addEdge(START, "ask")
    .addEdge("ask", END),
});

const listening = defineGraph({
  name: "listening",
  version: 1,
  durability: "durable",
  graph: new StateGraph(Asking)
    .addNode("listen", async () => ({ answer: await waitForEvent("reply") }))
    .addEdge(START, "listen")
    .addEdge("listen", END),
});

const cs: Countersign = await countersign({
  database: pool,
  graphs: [...Object.values(graphs), pair, asking, listening],
  backend: postgres(),
});
afterAll(() => cs.close());

/** Starts a thread that asks for one letter, and returns what it asks. */
async function ask(
  kind: keyof typeof graphs,
  { input = hello, ...options }: StartOptions & { readonly input?: typeof hello } = {},
): Promise<ExecutionIntent> {
  const run = await cs.start(graphs[kind], { letter: input } as never, options);
  return onlyOne(run.pending);
}

async function askDecision(editable: boolean): Promise<ExecutionIntent> {
  return onlyOne((await cs.start(asking, { editable } as never)).pending);
}

const now = async (id: string): Promise<ExecutionIntent> => (await cs.intent(id)) as ExecutionIntent;
const actionsOf = async (threadId: string) => (await cs.audit.list(threadId)).map((row) => row.action);
const sentIn = (intent: ExecutionIntent) => sent.filter(({ key }) => key === intent.idempotencyKey);

/** The error of an attempt that must fail, after a look at the whole database: nothing may have changed. */
async function refusal(attempt: () => Promise<unknown>): Promise<CountersignError> {
  const before = await everything(pool);
  const error = await attempt().then(
    (value) => {
      throw new Error(`it was accepted: ${JSON.stringify(value)}`);
    },
    (reason: CountersignError) => reason,
  );
  expect(await everything(pool)).toEqual(before);
  return error;
}

describe("a decision", () => {
  it("approves what the reviewer saw, and that runs", async () => {
    const intent = await ask("one");
    const after = await cs.approve(intent.id, { by: mia, digest: intent.digest });
    expect(after.status).toBe("runnable");
    await cs.work({ until: "idle" });
    expect(sentIn(intent).map(({ input }) => input)).toEqual([hello]);
    expect((await cs.result(intent.threadId)).output).toMatchObject({ outcome: { status: "succeeded", input: hello } });
  });

  it("edits it, and what runs and what the graph hears is the amended payload", async () => {
    const intent = await ask("one");
    const after = await cs.edit(intent.id, { text: "good day" }, { by: mia, digest: intent.digest });
    expect(after).toMatchObject({ status: "runnable", payload: { ...hello, text: "good day" } });
    expect(after.digest).not.toBe(intent.digest);
    expect(after.proposedDigest).toBe(intent.digest);
    await cs.work({ until: "idle" });
    expect(sentIn(intent).map(({ input }) => input.text)).toEqual(["good day"]);
    expect((await cs.result(intent.threadId)).output).toMatchObject({ outcome: { input: { text: "good day" } } });
    const digests = (await cs.audit.list(intent.threadId)).map((row) => row.digest);
    expect(digests).toEqual(expect.arrayContaining([intent.digest, after.digest]));
  });

  it("rejects it, and the graph hears why", async () => {
    const intent = await ask("one");
    await cs.reject(intent.id, { by: mia, reason: "conflict of interest", reasonCode: "conflict" });
    await cs.work({ until: "idle" });
    expect((await cs.result(intent.threadId)).output).toMatchObject({ outcome: { status: "rejected" } });
    expect((await now(intent.id)).error).toEqual({ code: "REJECTED", message: "conflict of interest" });
  });

  it("edits a decision that takes edits, within its schema", async () => {
    const intent = await askDecision(true);
    const after = await cs.edit(intent.id, { limit: 50 }, { by: mia, digest: intent.digest });
    expect(after).toMatchObject({ status: "succeeded", payload: { limit: 50 } });
    await cs.work({ until: "idle" });
    expect((await cs.result(intent.threadId)).output).toMatchObject({
      answer: { status: "approved", payload: { limit: 50 } },
    });
  });

  it("can be made by a process that does not know the commitment, an edit cannot: it could not be checked", async () => {
    await using elsewhere = await countersign({ database: pool, graphs: [], backend: postgres() });
    const intent = await ask("one");
    const by = { by: mia, digest: intent.digest };
    expect(await refusal(() => elsewhere.edit(intent.id, { text: "x" }, by))).toMatchObject({ code: "EDIT_INVALID" });
    expect((await elsewhere.approve(intent.id, by)).status).toBe("runnable");
  });
});

describe("a decision is refused, and nothing changes, when", () => {
  it("its digest is not that of the payload now", async () => {
    const intent = await ask("two");
    const after = await cs.edit(intent.id, { text: "edited" }, { by: lou, digest: intent.digest });
    const stale = { by: hana, digest: intent.digest };
    for (const attempt of [
      () => cs.approve(intent.id, stale),
      () => cs.edit(intent.id, { text: "other" }, stale),
      () => cs.reject(intent.id, stale),
      () => cs.approve(intent.id, { by: hana } as never),
    ]) {
      expect(await refusal(attempt)).toMatchObject({
        code: "INTENT_DIGEST_MISMATCH",
        facts: expect.objectContaining({ current: after.digest }),
      });
    }
  });

  it("the same person has decided on this payload already", async () => {
    const intent = await ask("two");
    const by = { by: hana, digest: intent.digest };
    await cs.approve(intent.id, by);
    expect(await refusal(() => cs.approve(intent.id, by))).toMatchObject({ code: "ALREADY_DECIDED" });
  });

  it("somebody else decided, and it has run since", async () => {
    const intent = await ask("one");
    const by = { by: mia, digest: intent.digest };
    await cs.approve(intent.id, by);
    await cs.work({ until: "idle" });
    for (const attempt of [
      () => cs.approve(intent.id, { ...by, by: max }),
      () => cs.edit(intent.id, { text: "late" }, { ...by, by: max }),
      () => cs.reject(intent.id, { by: max }),
    ]) {
      expect(await refusal(attempt)).toMatchObject({
        code: "ALREADY_DECIDED",
        facts: expect.objectContaining({ by: "mia", verdict: "approve" }),
      });
    }
  });

  it("it was rejected before: the answer is never approved", async () => {
    const intent = await ask("one");
    await cs.reject(intent.id, { by: mia });
    expect(await refusal(() => cs.approve(intent.id, { by: max, digest: intent.digest }))).toMatchObject({
      code: "ALREADY_DECIDED",
      facts: expect.objectContaining({ by: "mia", verdict: "reject" }),
    });
    expect((await now(intent.id)).status).toBe("rejected");
  });

  it("its thread was cancelled, also after half of its approvals", async () => {
    const untouched = await ask("two");
    const half = await ask("two");
    await cs.approve(half.id, { by: lou, digest: half.digest });
    for (const intent of [untouched, half]) {
      await cs.cancel(intent.threadId, { by: mia });
      expect(await refusal(() => cs.approve(intent.id, { by: hana, digest: intent.digest }))).toMatchObject({
        code: "INTENT_ENDED",
        facts: expect.objectContaining({ status: "cancelled" }),
      });
    }
  });
});

describe("a decision is refused, and nothing changes, where", () => {
  it("the intent never waited for one", async () => {
    const { threadId } = await cs.start(graphs.free, { letter: hello } as never);
    const [runnable] = await cs.intents(threadId);
    const by = { by: mia, digest: String(runnable?.digest) };
    expect(await refusal(() => cs.approve(String(runnable?.id), by))).toMatchObject({ code: "INTENT_STATE" });
    await cs.work({ until: "idle" });
    expect(await refusal(() => cs.reject(String(runnable?.id), { by: mia }))).toMatchObject({ code: "INTENT_ENDED" });
  });

  it("the intent waits for an event, not for a person", async () => {
    const { threadId } = await cs.start(listening, {} as never);
    const [event] = await cs.intents(threadId);
    expect(await refusal(() => cs.approve(String(event?.id), { by: mia, digest: "" }))).toMatchObject({
      code: "INTENT_STATE",
    });
  });

  it.each([randomUUID(), "not-a-uuid", "", "x' or true --"])("there is no such intent: %o", async (id) => {
    expect(await refusal(() => cs.approve(id, { by: mia, digest: "" }))).toMatchObject({ code: "INTENT_NOT_FOUND" });
    expect(await refusal(() => cs.edit(id, { a: 1 }, { by: mia, digest: "" }))).toMatchObject({
      code: "INTENT_NOT_FOUND",
    });
    expect(await refusal(() => cs.reject(id, { by: mia }))).toMatchObject({ code: "INTENT_NOT_FOUND" });
  });

  it.each([randomUUID(), "not-a-uuid", ""])("there is no such intent to look at: %o", async (id) => {
    expect(await cs.intent(id)).toBeUndefined();
  });

  it("the request expired before it, whether or not the sweep has run (rule 12)", async () => {
    const intent = await ask("one");
    const half = await ask("two");
    await cs.approve(half.id, { by: lou, digest: half.digest });
    await moveClock(pool, { byMs: 48 * HOUR_MS + 1 });
    try {
      const late = { by: mia, digest: intent.digest };
      expect(await refusal(() => cs.approve(intent.id, late))).toMatchObject({ code: "DECISION_EXPIRED" });
      expect(await refusal(() => cs.edit(intent.id, { text: "x" }, late))).toMatchObject({ code: "DECISION_EXPIRED" });
      expect(await refusal(() => cs.reject(intent.id, { by: mia }))).toMatchObject({ code: "DECISION_EXPIRED" });
      expect(await cs.pending({ threadId: intent.threadId })).toEqual([]);
      await cs.work({ until: "idle" });
      expect((await now(intent.id)).status).toBe("expired");
      for (const expired of [intent, half]) {
        const attempt = () => cs.approve(expired.id, { by: hana, digest: expired.digest });
        expect(await refusal(attempt)).toMatchObject({ code: "INTENT_ENDED", facts: { status: "expired" } });
      }
    } finally {
      await moveClock(pool, { byMs: 0 });
    }
  });
});

describe("a person is refused, and nothing changes, when", () => {
  it.each([
    undefined,
    null,
    {},
    { id: "", roles: ["manager"] },
    { id: "mia" },
    { id: "mia", roles: "manager" },
    { id: "mia", roles: [1] },
    { id: 7, roles: ["manager"] },
  ])("nobody says who they are: %o (rule 9)", async (by) => {
    const intent = await ask("one");
    const nobody = { by, digest: intent.digest } as never;
    for (const attempt of [
      () => cs.approve(intent.id, nobody),
      () => cs.edit(intent.id, { text: "x" }, nobody),
      () => cs.reject(intent.id, nobody),
      () => cs.reject(intent.id, undefined as never),
    ]) {
      expect(await refusal(attempt)).toMatchObject({ code: "OPTION_INVALID" });
    }
  });

  it("they hold none of the roles that may decide", async () => {
    const intent = await ask("one");
    for (const roles of [[], ["intern"], ["Manager"]]) {
      const by = { by: { id: "ian", roles }, digest: intent.digest };
      expect(await refusal(() => cs.approve(intent.id, by))).toMatchObject({ code: "DECISION_NOT_ALLOWED" });
      expect(await refusal(() => cs.edit(intent.id, { text: "x" }, by))).toMatchObject({
        code: "DECISION_NOT_ALLOWED",
      });
    }
  });

  it("they proposed it themselves, for A2 and above (rule 7)", async () => {
    const intent = await ask("two", { proposedBy: "hana" });
    const by = { by: hana, digest: intent.digest };
    expect(await refusal(() => cs.approve(intent.id, by))).toMatchObject({ code: "DECISION_NOT_ALLOWED" });
    expect(await refusal(() => cs.edit(intent.id, { text: "x" }, by))).toMatchObject({ code: "DECISION_NOT_ALLOWED" });
    expect((await cs.reject(intent.id, { by: hana })).status).toBe("rejected");
  });
});

describe("an edit is refused, and nothing changes, when", () => {
  it.each([
    ["it does not fit the schema", { text: 7 }],
    ["it takes a needed part away", { text: null }],
    ["it changes nothing", { text: "hello" }],
    ["it is empty", {}],
    ["it names only parts that the payload does not have", { subject: "hi" }],
    ["it is no object", [1, 2]],
  ])("%s", async (_name, amendment) => {
    const intent = await ask("one");
    const attempt = () => cs.edit(intent.id, amendment as never, { by: mia, digest: intent.digest });
    expect(await refusal(attempt)).toMatchObject({ code: "EDIT_INVALID" });
  });

  it("it is not plain JSON", async () => {
    const intent = await ask("one");
    const attempt = () => cs.edit(intent.id, { text: new Date() }, { by: mia, digest: intent.digest });
    expect(await refusal(attempt)).toMatchObject({ code: "PAYLOAD_NOT_JSON" });
  });

  it("the decision takes none, or the edit leaves its schema", async () => {
    const fixed = await askDecision(false);
    const by = { by: mia, digest: fixed.digest };
    expect(await refusal(() => cs.edit(fixed.id, { limit: 20 }, by))).toMatchObject({ code: "EDIT_INVALID" });
    const editable = await askDecision(true);
    for (const amendment of [{ limit: 101 }, { limit: "50" }, { limit: 10 }, { other: 1 }]) {
      const attempt = () => cs.edit(editable.id, amendment, { by: mia, digest: editable.digest });
      expect(await refusal(attempt)).toMatchObject({ code: "EDIT_INVALID" });
    }
  });
});

describe("two people", () => {
  it("must both approve, in distinct roles", async () => {
    const intent = await ask("two");
    const approve = (by: typeof mia) => cs.approve(intent.id, { by, digest: intent.digest });
    expect((await approve(hana)).status).toBe("awaiting_decision");
    expect((await approve({ id: "hugo", roles: ["head"] })).status).toBe("awaiting_decision");
    await cs.work({ until: "idle" });
    expect(sentIn(intent)).toEqual([]);
    expect((await approve({ id: "fay", roles: ["finance"] })).status).toBe("runnable");
  });

  it("are not one person with both roles", async () => {
    const intent = await ask("two");
    const both = { by: { id: "hana", roles: ["head", "legal"] }, digest: intent.digest };
    expect((await cs.approve(intent.id, both)).status).toBe("awaiting_decision");
    expect(await refusal(() => cs.approve(intent.id, both))).toMatchObject({ code: "ALREADY_DECIDED" });
  });

  it("start anew after an edit: it voids the other's approval and is its author's own (rules 8 and 11)", async () => {
    const intent = await ask("two");
    await cs.approve(intent.id, { by: hana, digest: intent.digest });
    const edited = await cs.edit(intent.id, { text: "edited" }, { by: lou, digest: intent.digest });
    expect(edited.status).toBe("awaiting_decision");
    expect(await refusal(() => cs.approve(intent.id, { by: lou, digest: edited.digest }))).toMatchObject({
      code: "ALREADY_DECIDED",
    });
    expect((await cs.approve(intent.id, { by: hana, digest: edited.digest })).status).toBe("runnable");
    await cs.work({ until: "idle" });
    expect(sentIn(intent).map(({ input }) => input.text)).toEqual(["edited"]);
  });

  it("may change their mind: who approved may still reject, as long as nothing runs", async () => {
    const intent = await ask("two");
    await cs.approve(intent.id, { by: hana, digest: intent.digest });
    expect((await cs.reject(intent.id, { by: hana, reason: "on second thoughts" })).status).toBe("rejected");
    expect(await actionsOf(intent.threadId)).toEqual([
      "thread.started",
      "intent.recorded",
      "decision.approved",
      "decision.rejected",
    ]);
  });
});

describe("who must sign off", () => {
  it("is not for the graph to lower: a call can ask for more than its commitment, never for less", async () => {
    const intent = await ask("lowering");
    expect(intent.requirement.minApprovers).toBe(3);
    expect(intent.requirement.roles).toContainEqual(expect.arrayContaining(["manager"]));
  });

  it("is not for an edit to shed: the roles that the call asked for stay", async () => {
    const intent = await ask("demanding");
    expect(intent.requirement.roles).toContainEqual(["cfo"]);
    const cfo = { id: "cleo", roles: ["cfo"] };
    const edited = await cs.edit(intent.id, { text: "x" }, { by: cfo, digest: intent.digest });
    expect(edited.requirement.roles).toContainEqual(["cfo"]);
  });

  it("is not for an editor to take over: a role that cannot approve cannot edit the need for it away", async () => {
    const intent = await ask("demanding");
    await cs.edit(intent.id, { text: "x" }, { by: mia, digest: intent.digest }).catch(() => {});
    await cs.work({ until: "idle" });
    expect((await now(intent.id)).status).toBe("awaiting_decision");
    expect(sentIn(intent)).toEqual([]);
  });
});

describe("two reviewers at once", () => {
  const PAIRS = Array.from({ length: 20 }, (_, index) => index);
  const both = (one: Promise<ExecutionIntent>, other: Promise<ExecutionIntent>) => Promise.allSettled([one, other]);
  const lost = (results: PromiseSettledResult<ExecutionIntent>[]) =>
    results.flatMap((result) => (result.status === "rejected" ? [result.reason as CountersignError] : []));

  it("who both must approve each count once", async () => {
    const intents = await Promise.all(PAIRS.map(() => ask("two")));
    await Promise.all(
      intents.flatMap(({ id, digest }) => [cs.approve(id, { by: hana, digest }), cs.approve(id, { by: lou, digest })]),
    );
    for (const { id, threadId } of intents) {
      expect((await now(id)).status).toBe("runnable");
      expect((await actionsOf(threadId)).filter((action) => action === "decision.approved")).toHaveLength(2);
    }
  });

  it("of whom one approves and one rejects: one wins, and the other is told who was first", async () => {
    const intents = await Promise.all(PAIRS.map(() => ask("one")));
    const results = await Promise.all(
      intents.map(({ id, digest }) => both(cs.approve(id, { by: mia, digest }), cs.reject(id, { by: max, digest }))),
    );
    await cs.work({ until: "idle" });
    for (const [index, intent] of intents.entries()) {
      const [loser, ...more] = lost(results[index] ?? []);
      const approved = results[index]?.[0]?.status === "fulfilled";
      expect(more).toEqual([]);
      expect(loser).toMatchObject({ code: "ALREADY_DECIDED", facts: { by: approved ? "mia" : "max" } });
      expect((await now(intent.id)).status).toBe(approved ? "succeeded" : "rejected");
      expect(sentIn(intent)).toHaveLength(approved ? 1 : 0);
    }
  });

  it("who are one person with two windows count once", async () => {
    const intents = await Promise.all(PAIRS.map(() => ask("two")));
    const results = await Promise.all(
      intents.map(({ id, digest }) => both(cs.approve(id, { by: hana, digest }), cs.approve(id, { by: hana, digest }))),
    );
    expect(results.map(lost).map((errors) => errors.map(({ code }) => code))).toEqual(
      PAIRS.map(() => ["ALREADY_DECIDED"]),
    );
    for (const { id } of intents) expect((await now(id)).status).toBe("awaiting_decision");
  });

  it("who both edit: the second one's digest is stale by then", async () => {
    const intents = await Promise.all(PAIRS.map(() => ask("two")));
    const results = await Promise.all(
      intents.map(({ id, digest }) =>
        both(
          cs.edit(id, { text: "of hana" }, { by: hana, digest }),
          cs.edit(id, { text: "of lou" }, { by: lou, digest }),
        ),
      ),
    );
    expect(results.map(lost).map((errors) => errors.map(({ code }) => code))).toEqual(
      PAIRS.map(() => ["INTENT_DIGEST_MISMATCH"]),
    );
  });
});

describe("a rejection (G5)", () => {
  it("leaves nothing runnable, and an audit row without the payload or the reason's words", async () => {
    const intent = await ask("one", { input: { to: "secret-address", text: "secret-text" } });
    await cs.reject(intent.id, { by: mia, reason: "secret-reason", reasonCode: "policy" });
    await cs.work({ until: "idle" });
    expect((await cs.intents(intent.threadId)).map(({ status }) => status)).toEqual(["rejected"]);
    expect(sentIn(intent)).toEqual([]);
    const rows = await cs.audit.list(intent.threadId);
    expect(rows.filter((row) => row.action === "decision.rejected")).toEqual([
      expect.objectContaining({
        actorType: "human",
        actorId: "mia",
        intentId: intent.id,
        commitment: "letter.one@1",
        classes: "A1/R2/S1/gated/external_message",
        digest: intent.digest,
        outcome: "rejected",
        reasonCode: "policy",
      }),
    ]);
    expect(JSON.stringify(rows)).not.toContain("secret");
  });

  it("of one of a commitAll ends the others, also one that was approved already", async () => {
    const { pending, threadId } = await cs.start(pair, {} as never);
    const [one, other] = ["pair.first", "pair.second"].map((name) => pending.find((of) => of.commitment === name));
    await cs.approve(String(one?.id), { by: mia, digest: String(one?.digest) });
    await cs.reject(String(other?.id), { by: lou });
    await cs.work({ until: "idle" });
    expect((await cs.result(threadId)).output).toEqual({ statuses: ["cancelled", "rejected"] });
    expect(sent.filter(({ commitment }) => commitment.startsWith("pair."))).toEqual([]);
    const cancelled = (await cs.audit.list(threadId)).filter((row) => row.intentId === one?.id).at(-1);
    expect(cancelled).toMatchObject({ outcome: "cancelled", actorId: "lou", reasonCode: "sibling_rejected" });
  });

  it("of one of a commitAll, as the other is decided at the same time, starts neither", async () => {
    const runs = await Promise.all(Array.from({ length: 20 }, () => cs.start(pair, {} as never)));
    await Promise.all(
      runs.flatMap(({ pending }) =>
        pending.map(({ id, digest, commitment }) =>
          commitment === "pair.first"
            ? cs.approve(id, { by: mia, digest }).catch(() => {})
            : cs.reject(id, { by: lou, digest }),
        ),
      ),
    );
    for (const { threadId } of runs) {
      const effects = (await cs.intents(threadId)).filter(({ kind }) => kind === "effect");
      expect(effects.map(({ status }) => status).sort()).toEqual(["cancelled", "rejected"]);
    }
  });
});

describe("pending()", () => {
  const ids = async (filter: Parameters<Countersign["pending"]>[0]) => (await cs.pending(filter)).map(({ id }) => id);

  it("lists by tenant, thread and commitment, all that is given at once", async () => {
    const tenant = randomUUID();
    const one = await ask("one", { tenant });
    const both = await ask("two", { tenant });
    expect(await ids({ tenant })).toEqual([one.id, both.id]);
    expect(await ids({ tenant, commitment: "letter.two" })).toEqual([both.id]);
    expect(await ids({ tenant, threadId: one.threadId })).toEqual([one.id]);
    expect(await ids({ tenant, threadId: one.threadId, commitment: "letter.two" })).toEqual([]);
    expect(await ids({ tenant: "nobody" })).toEqual([]);
  });

  it("lists for a role what a person with it may decide", async () => {
    const tenant = randomUUID();
    const thread_id = await insertThread(pool, { tenant });
    const one = await ask("one", { tenant });
    const both = await ask("two", { tenant });
    const open = await insertIntent(pool, { thread_id, tenant });
    expect(await ids({ tenant, role: "manager" })).toEqual([one.id, open]);
    expect(await ids({ tenant, role: "finance" })).toEqual([both.id, open]);
    expect(await ids({ tenant, role: "intern" })).toEqual([open]);
  });

  it("leaves out what this person has approved, until an edit asks them again", async () => {
    const tenant = randomUUID();
    const { id, digest } = await ask("two", { tenant });
    await cs.approve(id, { by: hana, digest });
    expect(await ids({ tenant, principalId: "hana" })).toEqual([]);
    expect(await ids({ tenant, principalId: "lou" })).toEqual([id]);
    await cs.edit(id, { text: "edited" }, { by: lou, digest });
    expect(await ids({ tenant, principalId: "hana" })).toEqual([id]);
    expect(await ids({ tenant, principalId: "lou" })).toEqual([]);
  });

  it.each([0, -1, 1.5, 501, Number.NaN, "10"])("refuses the limit %o", async (limit) => {
    await expect(cs.pending({ limit: limit as number })).rejects.toMatchObject({ code: "OPTION_INVALID" });
  });

  it.each([
    ["to the microsecond", () => "2026-01-01 00:00:00.123456+00"],
    ["in groups", (index: number) => `2026-01-01 00:00:00.1234${Math.floor(index / 50)}6+00`],
    ["to the millisecond", (index: number) => `2026-01-01 00:00:00.123${String(index).padStart(3, "0")}+00`],
  ])("pages over 250 requests that are equally old %s: each once, in order", async (_name, createdAt) => {
    const tenant = randomUUID();
    const thread_id = await insertThread(pool, { tenant });
    for (let index = 0; index < 250; index++) {
      await insertIntent(pool, { thread_id, tenant, created_at: createdAt(index) });
    }
    const listed: ExecutionIntent[] = [];
    for (let page = 0; page < 10; page++) {
      const after = listed.at(-1);
      const found = await cs.pending({ tenant, limit: 40, ...(after === undefined ? {} : { after }) });
      if (found.length === 0) break;
      listed.push(...found);
    }
    expect(listed.map(({ id }) => id)).toEqual(await ids({ tenant, limit: 500 }));
    expect(listed).toHaveLength(250);
  });
});

describe("an idempotency key of the caller's own", () => {
  const to = () => `${randomUUID()}@example.org`;

  it("may come back with the same payload: the provider sees one key", async () => {
    const input = { to: to(), text: "hello" };
    const intents = [await ask("keyed", { input }), await ask("keyed", { input })];
    expect(new Set(intents.map(({ id }) => id)).size).toBe(2);
    for (const { id, digest } of intents) await cs.approve(id, { by: mia, digest });
    await cs.work({ until: "idle" });
    const keys = sent.filter((call) => call.input.to === input.to).map(({ key }) => key);
    expect(keys).toEqual([`letter to ${input.to}`, `letter to ${input.to}`]);
  });

  it("is refused with another payload, and nothing is recorded", async () => {
    const input = { to: to(), text: "hello" };
    await ask("keyed", { input });
    const run = await cs.start(graphs.keyed, { letter: { ...input, text: "other" } } as never);
    expect(run).toMatchObject({ status: "failed", error: { code: "IDEMPOTENCY_KEY_REUSED" } });
    expect(await cs.intents(run.threadId)).toEqual([]);
    expect(await actionsOf(run.threadId)).toEqual(["thread.started", "thread.failed"]);
  });

  it("is refused when an edit would come to one that stands for another payload", async () => {
    const taken = { to: to(), text: "hello" };
    await ask("keyed", { input: taken });
    const intent = await ask("keyed", { input: { to: to(), text: "other" } });
    const attempt = () => cs.edit(intent.id, { to: taken.to }, { by: mia, digest: intent.digest });
    expect(await refusal(attempt)).toMatchObject({ code: "IDEMPOTENCY_KEY_REUSED" });
  });

  it("stands for the payload as it was edited, not as it was proposed", async () => {
    const input = { to: to(), text: "hello" };
    const intent = await ask("keyed", { input });
    await cs.edit(intent.id, { text: "edited" }, { by: mia, digest: intent.digest });
    const again = await cs.start(graphs.keyed, { letter: input } as never);
    expect(again).toMatchObject({ status: "failed", error: { code: "IDEMPOTENCY_KEY_REUSED" } });
    const same = await cs.start(graphs.keyed, { letter: { ...input, text: "edited" } } as never);
    expect(same.status).toBe("waiting");
  });

  it("goes to one of two payloads that come at the same time, whichever process proposes them", async () => {
    await using elsewhere = await countersign({ database: pool, graphs: [graphs.keyed], backend: postgres() });
    const addresses = Array.from({ length: 20 }, to);
    const runs = await Promise.all(
      addresses.map((address) =>
        Promise.all([
          cs.start(graphs.keyed, { letter: { to: address, text: "one" } } as never),
          elsewhere.start(graphs.keyed, { letter: { to: address, text: "other" } } as never),
        ]),
      ),
    );
    for (const pairOfRuns of runs) {
      expect(pairOfRuns.map(({ status }) => status).sort()).toEqual(["failed", "waiting"]);
      const refused = pairOfRuns.find(({ status }) => status === "failed");
      expect(refused?.error?.code).toBe("IDEMPOTENCY_KEY_REUSED");
      expect(await cs.intents(String(refused?.threadId))).toEqual([]);
    }
  });

  it("is the tenant's own", async () => {
    const input = { to: to(), text: "hello" };
    await ask("keyed", { input, tenant: "one" });
    const other = await ask("keyed", { input: { ...input, text: "other" }, tenant: "two" });
    expect(other.status).toBe("awaiting_decision");
  });
});
