import { afterEach, expect, it } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import {
  type AnyGraph,
  type Countersign,
  type CountersignOptions,
  commit,
  commitAll,
  compensate,
  countersign,
  NonRetryableError,
  pending,
  requestDecision,
} from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { clockOf, effect, MIA, NEEDS_MANAGER, PAST_LEASE_MS } from "../support/effects.ts";
import { gate } from "../support/gate.ts";
import { begin, effectsOf, endOf, graphWith, type Log, undoable } from "../support/undoing.ts";

const { pool } = await testDatabase();
const { later } = clockOf(pool);

/** What no caller was told of. A test that expects some takes them out. */
const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));

const open = (graphs: AnyGraph[], options: Partial<CountersignOptions> = {}) =>
  countersign({ database: pool, graphs, backend: postgres(), onError: (error) => errors.push(error), ...options });

const decide = async () => (await requestDecision({ name: "go-on", payload: {} })).status;

async function rejectGoOn(cs: Countersign, threadId: string): Promise<void> {
  const [asked] = await cs.pending({ threadId, commitment: "go-on" });
  if (asked === undefined) throw new Error("nobody was asked");
  await cs.reject(asked.id, { by: MIA });
}

it("undoes what a thread did in reverse order, one after the other, each once and under a key of its own", async () => {
  const log: Log = [];
  const keys: string[] = [];
  const openSteps: number[] = [];
  const step = undoable(log, {
    compensate: async ({ input }, { idempotencyKey }) => {
      const { rows } = await pool.query(`select from countersign.execution_intents
        where compensates is not null and status in ('runnable', 'dispatched')`);
      openSteps.push(rows.length);
      keys.push(idempotencyKey);
      log.push(`undo ${input.n}`);
    },
  });
  const graph = graphWith([step], async () => {
    for (const n of [1, 2, 3]) await commit(step, { n });
    return (await compensate({ reason: "changed our mind" })).status;
  });
  await using cs = await open([graph]);
  await using other = await open([graph]);
  const { threadId } = await cs.start(graph, { end: "" });
  await Promise.all([cs, other, cs, other].map((each) => each.work({ until: "idle" })));
  await cs.work({ until: "idle" });

  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "compensated" });
  expect(log).toEqual(["do 1", "do 2", "do 3", "undo 3", "undo 2", "undo 1"]);
  expect(openSteps).toEqual([1, 1, 1]);
  expect(await effectsOf(cs, threadId)).toEqual(["1 compensated", "2 compensated", "3 compensated"]);
  const steps = (await cs.intents(threadId)).filter((intent) => intent.compensates !== null);
  expect(keys.sort()).toEqual(steps.map((intent) => intent.idempotencyKey).sort());
  expect(new Set([...keys, ...steps.map((intent) => intent.compensates)]).size).toBe(6);
});

it("tells each handler what was done, and why it is undone", async () => {
  const log: Log = [];
  const step = undoable(log);
  const graph = graphWith([step], async () => {
    await commit(step, { n: 1 });
    return (await compensate({ reason: "changed our mind" })).status;
  });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  expect(log).toEqual(["do 1", "undo 1 r-1: changed our mind"]);
  const actions = (await cs.audit.list(threadId)).map((row) => row.action);
  expect(actions).toEqual(expect.arrayContaining(["compensation.started", "compensation.succeeded"]));
  expect(JSON.stringify(await cs.audit.list(threadId))).not.toContain("changed our mind");
  expect(await cs.audit.verify({ threadId })).toEqual([]);
});

it("skips what cannot be undone, and what did not succeed", async () => {
  const log: Log = [];
  const step = undoable(log);
  const final = effect({ execute: async () => ({ ref: "r" }) });
  const refused = undoable(log, { execute: () => Promise.reject(new NonRetryableError("No")) });
  const graph = graphWith([step, final, refused], async () => {
    await commit(step, { n: 1 });
    await commit(final, { n: 2 });
    await commit(refused, { n: 3 });
    return (await compensate({ reason: "stop" })).status;
  });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "compensated" });
  expect(log).toEqual(["do 1", "undo 1 r-1: stop"]);
  expect(await effectsOf(cs, threadId)).toEqual(["1 compensated", "2 succeeded", "3 failed"]);
});

it("ends well at once where there is nothing to undo", async () => {
  const graph = graphWith([], async () => (await compensate({ reason: "stop" })).status);
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "compensated" });
});

it("tries a failing compensation again, under the same key", async () => {
  const keys: string[] = [];
  const step = undoable([], {
    retry: { initialIntervalMs: 60_000 },
    compensate: async (_done, { idempotencyKey }) => {
      keys.push(idempotencyKey);
      if (keys.length < 2) throw new Error("away");
    },
  });
  const graph = graphWith([step], async () => {
    await commit(step, { n: 1 });
    return (await compensate({ reason: "stop" })).status;
  });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  expect(keys).toHaveLength(1);
  expect(await effectsOf(cs, threadId)).toEqual(["1 compensating"]);
  await later(60_000);
  await cs.work({ until: "idle" });
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "compensated" });
  expect(keys[1]).toBe(keys[0]);
});

it("goes on to the earlier ones when a compensation fails for good, and a replay of that mends the thread", async () => {
  const log: Log = [];
  let mended = false;
  const step = undoable(log, {
    compensate: async ({ input }) => {
      if (input.n === 2 && !mended) throw new NonRetryableError("The shop is shut");
      log.push(`undo ${input.n}`);
    },
  });
  const graph = graphWith([step], async () => {
    for (const n of [1, 2, 3]) await commit(step, { n });
    return (await compensate({ reason: "stop" })).status;
  });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  expect(await endOf(cs, threadId)).toEqual({ status: "compensation_failed", end: "compensation_failed" });
  expect(log.slice(3)).toEqual(["undo 3", "undo 1"]);
  expect(await effectsOf(cs, threadId)).toEqual(["1 compensated", "2 compensation_failed", "3 compensated"]);

  mended = true;
  const letters = (await cs.intents(threadId)).filter((i) => i.compensates !== null && i.status === "failed");
  for (const { id } of letters) await cs.replay(id, { by: MIA });
  await cs.work({ until: "idle" });
  expect(log.slice(5)).toEqual(["undo 2"]);
  expect(await effectsOf(cs, threadId)).toEqual(["1 compensated", "2 compensated", "3 compensated"]);
  expect((await endOf(cs, threadId)).status).toBe("compensated");
});

it("starts to undo in the very transaction of a rejection", async () => {
  const log: Log = [];
  const step = undoable(log);
  const body = async () => `${(await commit(step, { n: 1 })).status}, ${await decide()}`;
  const graph = graphWith([step], body, { onReject: "compensate" });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  await rejectGoOn(cs, threadId);
  const rows = await cs.audit.list(threadId);
  const [rejected, ...following] = rows.slice(rows.findIndex((row) => row.action === "decision.rejected"));
  expect(following).toMatchObject([{ action: "compensation.started", atMicroseconds: rejected?.atMicroseconds }]);

  await cs.work({ until: "idle" });
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "succeeded, rejected" });
  expect(log).toEqual(["do 1", "undo 1 r-1: rejected"]);
});

it("undoes nothing after a rejection where the graph does not ask for that", async () => {
  const log: Log = [];
  const step = undoable(log);
  const graph = graphWith([step], async () => {
    await commit(step, { n: 1 });
    return decide();
  });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  await rejectGoOn(cs, threadId);
  await cs.work({ until: "idle" });
  expect(await endOf(cs, threadId)).toEqual({ status: "completed", end: "rejected" });
  expect(log).toEqual(["do 1"]);
});

it("lets an effect that runs during the rejection end, and undoes it then", async () => {
  const log: Log = [];
  const held = gate();
  const slow = undoable(log, {
    execute: async () => {
      await held.pass();
      log.push("do 1");
      return { ref: "r-1" };
    },
  });
  const body = async () => {
    const [outcome, decision] = await Promise.all([commit(slow, { n: 1 }), decide()]);
    return `${outcome.status}, ${decision}`;
  };
  const graph = graphWith([slow], body, { onReject: "compensate" });
  await using worker = await open([graph]);
  await using other = await open([graph]);
  const { threadId } = await worker.start(graph, { end: "" });
  const working = worker.work({ until: "idle" });
  await held.reached();
  await rejectGoOn(other, threadId);
  await other.work({ until: "idle" });
  expect(await effectsOf(other, threadId)).toEqual(["1 dispatched"]);
  held.open();
  await working;
  expect(await endOf(other, threadId)).toEqual({ status: "compensated", end: "succeeded, rejected" });
  expect(log).toEqual(["do 1", "undo 1 r-1: rejected"]);
});

it("gives up what is pending at a provider, and undoes it by its reference", async () => {
  const log: Log = [];
  const sign = undoable(log, { execute: async () => pending({ externalRef: "envelope-7" }) });
  const body = async () => {
    const [outcome, decision] = await Promise.all([commit(sign, { n: 1 }), decide()]);
    return `${outcome.status}, ${decision}`;
  };
  const graph = graphWith([sign], body, { onReject: "compensate" });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  await rejectGoOn(cs, threadId);
  await cs.work({ until: "idle" });
  expect(log).toEqual(["undo 1 envelope-7: rejected"]);
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "cancelled, rejected" });
  const late = cs.complete({ commitment: sign, externalRef: "envelope-7" }, { output: { ref: "late" } });
  await expect(late).rejects.toMatchObject({ code: "INTENT_ENDED" });
});

it("cancels what has not started when a request of the thread is rejected", async () => {
  const log: Log = [];
  const ready = undoable(log);
  const asked = undoable(log, NEEDS_MANAGER);
  const body = async () => {
    const [one, two, decision] = await Promise.all([commit(ready, { n: 1 }), commit(asked, { n: 2 }), decide()]);
    return `${one.status}, ${two.status}, ${decision}`;
  };
  const graph = graphWith([ready, asked], body, { onReject: "compensate" });
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { end: "" });
  await rejectGoOn(cs, threadId);
  await cs.work({ until: "idle" });
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "cancelled, cancelled, rejected" });
  expect(log).toEqual([]);
  expect(await cs.pending({ threadId })).toEqual([]);
});

it("does not undo what the graph does after the rejection, such as telling somebody", async () => {
  const log: Log = [];
  const step = undoable(log);
  const body = async () => {
    await commit(step, { n: 1 });
    if ((await decide()) === "rejected") await commit(step, { n: 2 });
    return "told";
  };
  const graph = graphWith([step], body, { onReject: "compensate" });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  await rejectGoOn(cs, threadId);
  await cs.work({ until: "idle" });
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "told" });
  expect(log.sort()).toEqual(["do 1", "do 2", "undo 1 r-1: rejected"]);
  expect(await effectsOf(cs, threadId)).toEqual(["1 compensated", "2 succeeded"]);
});

it("undoes each effect once when the graph, too, asks for what a rejection has started", async () => {
  const log: Log = [];
  const step = undoable(log);
  const body = async () => {
    for (const n of [1, 2]) await commit(step, { n });
    const decision = await decide();
    return `${decision}, ${(await compensate({ reason: "by the graph" })).status}, ${log.at(-1)}`;
  };
  const graph = graphWith([step], body, { onReject: "compensate" });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  await rejectGoOn(cs, threadId);
  await cs.work({ until: "idle" });
  expect(log).toEqual(["do 1", "do 2", "undo 2 r-2: rejected", "undo 1 r-1: rejected"]);
  // It waited for the last of the steps.
  const end = "rejected, compensated, undo 1 r-1: rejected";
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end });
});

it("undoes what was done when an effect fails for good, where the graph asks for that", async () => {
  const log: Log = [];
  const step = undoable(log);
  const refused = undoable(log, { execute: () => Promise.reject(new NonRetryableError("No")) });
  const body = async () => {
    await commit(step, { n: 1 });
    return (await commit(refused, { n: 2 })).status;
  };
  const graph = graphWith([step, refused], body, { onFailure: "compensate" });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "failed" });
  expect(log).toEqual(["do 1", "undo 1 r-1: failed"]);
});

it("takes a request that expired for a rejection", async () => {
  const log: Log = [];
  const step = undoable(log);
  const body = async () => {
    await commit(step, { n: 1 });
    return (await requestDecision({ name: "go-on", payload: {}, timeoutMs: 60_000 })).status;
  };
  const graph = graphWith([step], body, { onReject: "compensate" });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  await later(60_000);
  await cs.work({ until: "idle" });
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "expired" });
  expect(log).toEqual(["do 1", "undo 1 r-1: expired"]);
});

it("undoes, of a thread without onReject, only what belongs to a rejected commitAll", async () => {
  const log: Log = [];
  const step = undoable(log);
  const asked = undoable(log, NEEDS_MANAGER);
  const body = async () => {
    await commit(step, { n: 1 });
    const outcomes = await commitAll([
      { commitment: step, input: { n: 2 } },
      { commitment: asked, input: { n: 3 } },
    ]);
    return outcomes.map((outcome) => outcome.status).join(", ");
  };
  const graph = graphWith([step, asked], body);
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  const [request] = await cs.pending({ threadId });
  await cs.reject(request?.id ?? "", { by: MIA });
  await cs.work({ until: "idle" });
  expect(log).toEqual(["do 1", "do 2", "undo 2 r-2: rejected"]);
  expect(await endOf(cs, threadId)).toEqual({ status: "completed", end: "succeeded, rejected" });
  expect(await effectsOf(cs, threadId)).toEqual(["1 succeeded", "2 compensated", "3 rejected"]);
});

it("waits for an effect whose end is unknown, and undoes it if it was done", async () => {
  const log: Log = [];
  const pay = undoable(log, { semantics: "at-most-once", execute: () => Promise.reject(new Error("hang up")) });
  const body = async () => {
    const [outcome, decision] = await Promise.all([commit(pay, { n: 1 }), decide()]);
    return `${outcome.status}, ${decision}`;
  };
  const graph = graphWith([pay], body, { onReject: "compensate" });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  await rejectGoOn(cs, threadId);
  await cs.work({ until: "idle" });
  expect(await effectsOf(cs, threadId)).toEqual(["1 unknown"]);
  const effectId = (await cs.intents(threadId)).find(({ kind }) => kind === "effect")?.id ?? "";
  await cs.complete({ intentId: effectId }, { output: { ref: "paid" }, receipt: { page: 1 }, by: MIA });
  await cs.work({ until: "idle" });
  expect(log).toEqual(["undo 1 paid: rejected"]);
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "succeeded, rejected" });
});

it("marks a thread compensated also when it had ended before the rejection came", async () => {
  const log: Log = [];
  const step = undoable(log);
  const asked = undoable(log, NEEDS_MANAGER);
  const body = async () => {
    await commit(step, { n: 1 });
    return (await commit(asked, { n: 2 }, { wait: false })).status;
  };
  const graph = graphWith([step, asked], body, { onReject: "compensate" });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  expect((await endOf(cs, threadId)).status).toBe("completed");
  const [request] = await cs.pending({ threadId });
  await cs.reject(request?.id ?? "", { by: MIA });
  await cs.work({ until: "idle" });
  expect(log).toEqual(["do 1", "undo 1 r-1: rejected"]);
  expect((await endOf(cs, threadId)).status).toBe("compensated");
});

it("goes on in another process where one stopped between two steps", async () => {
  const log: Log = [];
  const stop = new AbortController();
  const step = undoable(log, {
    compensate: async ({ input }) => {
      log.push(`undo ${input.n}`);
      stop.abort();
    },
  });
  const graph = graphWith([step], async () => {
    for (const n of [1, 2, 3]) await commit(step, { n });
    return (await compensate({ reason: "stop" })).status;
  });
  const first = await open([graph]);
  const working = first.work({ signal: stop.signal });
  const { threadId } = await first.start(graph, { end: "" });
  await working;
  await first.close();
  expect(log.slice(3)).toEqual(["undo 3"]);
  await using second = await open([graph]);
  await second.work({ until: "idle" });
  expect(await endOf(second, threadId)).toEqual({ status: "compensated", end: "compensated" });
  expect(log.slice(3)).toEqual(["undo 3", "undo 2", "undo 1"]);
});

it("runs a step again, under its key, whose worker was lost", async () => {
  const keys: string[] = [];
  const stuck = gate();
  const step = undoable([], {
    compensate: async (_done, { idempotencyKey }) => {
      keys.push(idempotencyKey);
      if (keys.length === 1) await stuck.pass();
    },
  });
  const graph = graphWith([step], async () => {
    await commit(step, { n: 1 });
    return (await compensate({ reason: "stop" })).status;
  });
  await using zombie = await open([graph]);
  await using cs = await open([graph]);
  const { threadId } = await zombie.start(graph, { end: "" });
  const working = zombie.work({ until: "idle" });
  await stuck.reached();
  await later(PAST_LEASE_MS);
  await cs.work({ until: "idle" });
  expect(await endOf(cs, threadId)).toEqual({ status: "compensated", end: "compensated" });
  stuck.open();
  await working;
  expect(errors.splice(0)).toMatchObject([{ code: "LEASE_LOST" }]);
  expect(keys).toHaveLength(2);
  expect(keys[1]).toBe(keys[0]);
});

it("leaves no effect half undone when the thread is cancelled meanwhile", async () => {
  const log: Log = [];
  const held = gate();
  const step = undoable(log, {
    compensate: async ({ input }) => {
      await held.pass();
      log.push(`undo ${input.n}`);
    },
  });
  const graph = graphWith([step], async () => {
    for (const n of [1, 2]) await commit(step, { n });
    return (await compensate({ reason: "stop" })).status;
  });
  await using worker = await open([graph]);
  await using other = await open([graph]);
  const { threadId } = await worker.start(graph, { end: "" });
  const working = worker.work({ until: "idle" });
  await held.reached();
  await other.cancel(threadId, { by: MIA });
  held.open();
  await working;
  await other.work({ until: "idle" });
  expect(log).toEqual(["do 1", "do 2", "undo 2", "undo 1"]);
  expect(await effectsOf(other, threadId)).toEqual(["1 compensated", "2 compensated"]);
});

it("refuses to cancel a step that undoes something", async () => {
  const step = undoable([], {
    retry: { initialIntervalMs: 60_000 },
    compensate: () => Promise.reject(new Error("no")),
  });
  const graph = graphWith([step], async () => {
    await commit(step, { n: 1 });
    return (await compensate({ reason: "stop" })).status;
  });
  await using cs = await open([graph]);
  const threadId = await begin(cs, graph);
  for (const { id } of (await cs.intents(threadId)).filter(({ kind }) => kind === "compensation")) {
    await expect(cs.cancelIntent(id, { by: MIA })).rejects.toMatchObject({ code: "INTENT_STATE" });
  }
  expect(await effectsOf(cs, threadId)).toEqual(["1 compensating"]);
});
