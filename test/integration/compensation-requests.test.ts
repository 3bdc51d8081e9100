import { afterEach, expect, it, vi } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { type AnyGraph, commit, commitAll, countersign, NonRetryableError } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { clockOf, MIA, NEEDS_MANAGER } from "../support/effects.ts";
import { gate } from "../support/gate.ts";
import { begin, effectsOf, endOf, graphWith, type Log, undoable } from "../support/undoing.ts";

/* What one request to undo covers, and what asks for another one. */

const { pool } = await testDatabase();
const { later } = clockOf(pool);

const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));

const open = (graph: AnyGraph) =>
  countersign({ database: pool, graphs: [graph], backend: postgres(), onError: (error) => errors.push(error) });

it("undoes what a second rejection asks for, also while the first is still being undone", async () => {
  const log: Log = [];
  const held = gate();
  const step = undoable(log, {
    compensate: async ({ input }) => {
      if (input.n === 1) await held.pass();
      log.push(`undo ${input.n}`);
    },
  });
  const asked = undoable(log, NEEDS_MANAGER);
  const body = async () => {
    const statuses: string[] = [];
    for (const n of [1, 2]) {
      await commit(step, { n }, { key: `step-${n}` });
      statuses.push((await commit(asked, { n: 10 + n }, { key: `asked-${n}` })).status);
    }
    return statuses.join(", ");
  };
  const graph = graphWith([step, asked], body, { onReject: "compensate" });
  await using cs = await open(graph);
  const threadId = await begin(cs, graph);
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  const rejectNext = async () => {
    const request = await vi.waitFor(async () => {
      const [first] = await cs.pending({ threadId });
      if (first === undefined) throw new Error("Nobody is asked yet");
      return first;
    });
    await cs.reject(request.id, { by: MIA });
  };
  await rejectNext();
  await held.reached();
  await rejectNext();
  held.open();
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "rejected, rejected" });
  stop.abort();
  await working;
  expect(log).toEqual(["do 1", "do 2", "undo 1", "undo 2"]);
});

it("undoes each of two groups that expire at the same moment, and nothing besides", async () => {
  const log: Log = [];
  const step = undoable(log);
  const asked = undoable(log, { ...NEEDS_MANAGER, decisionTimeoutMs: 60_000 });
  const pair = (n: number) =>
    commitAll([
      { commitment: step, input: { n } },
      { commitment: asked, input: { n: n + 10 } },
    ]);
  const body = async () => {
    await commit(step, { n: 3 });
    const groups = await Promise.all([pair(1), pair(2)]);
    return groups
      .flat()
      .map(({ status }) => status)
      .join(", ");
  };
  const graph = graphWith([step, asked], body);
  await using cs = await open(graph);
  const threadId = await begin(cs, graph);
  await later(60_000);
  await cs.work({ until: "idle" });
  expect((await endOf(cs, threadId)).status).toBe("completed");
  expect(await effectsOf(cs, threadId)).toEqual([
    "1 compensated",
    "11 expired",
    "12 expired",
    "2 compensated",
    "3 succeeded",
  ]);
});

it("undoes only the group when one of it is rejected and the graph asks for more on failures alone", async () => {
  const log: Log = [];
  const step = undoable(log);
  const asked = undoable(log, NEEDS_MANAGER);
  const failing = undoable(log, { execute: () => Promise.reject(new NonRetryableError("No")) });
  const body = async () => {
    await commit(step, { n: 1 });
    await commitAll([
      { commitment: step, input: { n: 2 } },
      { commitment: asked, input: { n: 3 } },
    ]);
    await commit(asked, { n: 4 });
    return (await commit(failing, { n: 5 })).status;
  };
  const graph = graphWith([step, asked, failing], body, { onFailure: "compensate" });
  await using cs = await open(graph);
  const threadId = await begin(cs, graph);
  const next = async () => (await cs.pending({ threadId }))[0] as { readonly id: string; readonly digest: string };
  await cs.reject((await next()).id, { by: MIA });
  await cs.work({ until: "idle" });
  expect(await effectsOf(cs, threadId)).toEqual(["1 succeeded", "2 compensated", "3 rejected", "4 awaiting_decision"]);

  const { id, digest } = await next();
  await cs.approve(id, { by: MIA, digest });
  await cs.work({ until: "idle" });
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "failed" });
  expect(await effectsOf(cs, threadId)).toEqual([
    "1 compensated",
    "2 compensated",
    "3 rejected",
    "4 compensated",
    "5 failed",
  ]);
});

it("undoes what may have been done: a sibling of a rejected request whose call ended without an answer", async () => {
  const log: Log = [];
  const held = gate();
  const unsure = undoable(log, {
    execute: async (_input, { idempotencyKey }) => {
      log.push(`do ${idempotencyKey}`);
      await held.pass();
      throw new Error("the connection was reset");
    },
    compensate: async ({ idempotencyKey, output }) => {
      log.push(`undo ${idempotencyKey}, answer ${output?.ref}`);
    },
  });
  const asked = undoable(log, NEEDS_MANAGER);
  const body = async () => {
    const outcomes = await commitAll([
      { commitment: unsure, input: { n: 1 } },
      { commitment: asked, input: { n: 2 } },
    ]);
    return outcomes.map(({ status }) => status).join(", ");
  };
  const graph = graphWith([unsure, asked], body);
  await using cs = await open(graph);
  const { threadId } = await cs.start(graph, { end: "" });
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  await held.reached();
  const [request] = await cs.pending({ threadId });
  await cs.reject(request?.id ?? "", { by: MIA });
  held.open();
  expect(await endOf(cs, threadId)).toEqual({ status: "completed", end: "cancelled, rejected" });
  const [intent] = (await cs.intents(threadId)).filter(({ kind }) => kind === "effect");
  await vi.waitFor(() => expect(log).toEqual([`do ${intent?.id}`, `undo ${intent?.id}, answer undefined`]));
  stop.abort();
  await working;
});
