import { expect, it } from "vitest";
import { z } from "zod";
import { postgres } from "../../src/backends/postgres/index.ts";
import { countersign, pending } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { clockOf, effect, graphOf, PAST_LEASE_MS } from "../support/effects.ts";
import { nonsenseBut } from "../support/nonsense.ts";

const { pool } = await testDatabase();
const { later } = clockOf(pool);

type Definition = Parameters<typeof effect>[0];

/** Carries out one effect with this handler until nothing is due, and says what became of it. */
async function carryOut(definition: Definition, { rounds = 1 } = {}) {
  const heard: unknown[] = [];
  let calls = 0;
  const send = effect({
    retry: { maxAttempts: 2, initialIntervalMs: 0 },
    ...definition,
    execute: async (...args) => {
      calls++;
      return definition.execute(...args);
    },
  });
  const graph = graphOf(send);
  await using cs = await countersign({
    database: pool,
    graphs: [graph],
    backend: postgres(),
    onError: (error) => heard.push(error),
  });
  const { threadId } = await cs.start(graph, { n: 1 });
  for (let round = 0; round < rounds; round++) {
    await cs.work({ until: "idle" });
    await later(PAST_LEASE_MS);
  }
  const [intent] = await cs.intents(threadId);
  return { intent, calls, heard, status: await cs.drive(threadId) };
}

it.each(nonsenseBut())(
  "a handler that throws %s is tried again, and then ends as a dead letter",
  async (_name, thrown) => {
    const { intent, calls, heard, status } = await carryOut({
      execute: async () => {
        throw thrown;
      },
    });
    expect(intent).toMatchObject({ status: "failed", error: { code: "NON_ERROR_THROWN" } });
    expect({ calls, heard, status }).toEqual({ calls: 2, heard: [], status: "completed" });
  },
);

it.each([
  ["whose message is a secret of 10 MB", () => new Error("s".repeat(10_000_000))],
  ["whose message Postgres cannot keep", () => new Error("a\u0000b\ud800")],
  ["without a message", () => new Error("")],
  ["that is its own cause", () => Object.assign(new Error("circle"), { cause: undefined, self: {} })],
  ["with a code that is a symbol", () => Object.assign(new Error("odd"), { code: Symbol("odd") })],
])("a handler that throws an error %s ends as a dead letter of one line", async (_name, make) => {
  const { intent, calls, heard } = await carryOut({
    execute: async () => {
      throw make();
    },
  });
  expect(intent).toMatchObject({ status: "failed", error: { code: "Error" } });
  expect(intent?.error?.message.length).toBeLessThanOrEqual(500);
  expect({ calls, heard }).toEqual({ calls: 2, heard: [] });
});

// What throws when it is awaited was never answered.
it.each(nonsenseBut("undefined", "null", "an object that throws when it is read"))(
  "a handler that answers %s has done its work: it is not called again, whatever its schema makes of it",
  async (_name, answer) => {
    const { intent, calls, heard, status } = await carryOut({ execute: async () => answer as never });
    expect(intent).toMatchObject({ status: "failed", output: null, error: { code: "OUTPUT_INVALID" } });
    expect({ calls, heard, status }).toEqual({ calls: 1, heard: [], status: "completed" });
  },
);

it.each(
  nonsenseBut(
    "a number",
    "a negative number",
    "null",
    "undefined",
    "an empty text",
    "a text",
    "an endless text",
    "an object",
    "a list",
    "a boolean",
  ),
)("an answer that the schema takes and JSON cannot hold, %s, is refused all the same", async (_name, answer) => {
  const { intent, calls, heard } = await carryOut({
    output: z.any(),
    execute: async () => ({ ref: answer }) as never,
  });
  expect(intent).toMatchObject({ status: "failed", output: null, error: { code: "PAYLOAD_NOT_JSON" } });
  expect({ calls, heard }).toEqual({ calls: 1, heard: [] });
});

it.each([
  [
    "throws",
    () => {
      throw new Error("a bug in a refinement");
    },
  ],
  ["is asynchronous", async () => true],
])("a schema that %s refuses the answer; the handler is not called again for it", async (_name, check) => {
  const { intent, calls } = await carryOut({
    output: z.object({ ref: z.string() }).refine(check as never),
    execute: async () => ({ ref: "done" }),
  });
  expect(intent).toMatchObject({ status: "failed", error: { code: "OUTPUT_INVALID" } });
  expect(calls).toBe(1);
});

it("an answer nested deeper than a parser goes is refused, not a crash", async () => {
  let deep: unknown = "bottom";
  for (let level = 0; level < 100_000; level++) deep = [deep];
  const { intent, calls } = await carryOut({ output: z.any(), execute: async () => deep as never });
  expect(intent).toMatchObject({ status: "failed", error: { code: "PAYLOAD_NOT_JSON" } });
  expect(calls).toBe(1);
});

it("a reference that no index could hold is refused as pending() is called", async () => {
  const { intent } = await carryOut({ execute: async () => pending({ externalRef: "x".repeat(3_000) }) });
  expect(intent).toMatchObject({ status: "failed", error: { code: "INPUT_INVALID" }, externalRef: null });
});

it.each(nonsenseBut())(
  "a reconcile that answers %s has not said that it knows: the effect stays unknown",
  async (_name, answer) => {
    const { intent, calls } = await carryOut(
      {
        semantics: "at-most-once",
        execute: async () => {
          throw new Error("the connection broke");
        },
        reconcile: async () => answer as never,
      },
      { rounds: 2 },
    );
    expect(intent).toMatchObject({ status: "unknown" });
    expect(calls).toBe(1);
  },
);

it.each([
  ["an output that the schema refuses", { status: "succeeded", output: { ref: 7 } }],
  ["a receipt that is not JSON", { status: "succeeded", output: { ref: "r" }, receipt: { at: 7n } }],
  ["a receipt that holds itself", { status: "succeeded", output: { ref: "r" }, receipt: circle() }],
  ["a status that nobody knows", { status: "done" }],
])("a poll that answers with %s leaves the effect pending, and says why where it can", async (_name, answer) => {
  const { intent } = await carryOut(
    { execute: async () => pending({ externalRef: "x-1" }), poll: async () => answer as never },
    { rounds: 2 },
  );
  expect(intent).toMatchObject({ status: "awaiting_external", receipt: null, output: null });
});

function circle(): object {
  const ring: { self?: object } = {};
  ring.self = ring;
  return ring;
}
