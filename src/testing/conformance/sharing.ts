import assert from "node:assert/strict";
import { settleIntents } from "../../database/claims.ts";
import { postgresDatabase } from "../../database/postgres.ts";
import { NonRetryableError } from "../../errors.ts";
import { type BackendCase, backendCase, gate, intentOf, PAST_LEASE_MS } from "./world.ts";

/** Several processes, their ends, and what belongs to whom. */
export const sharing: readonly BackendCase[] = [
  backendCase("carries each of 30 intents out once when three processes dispatch at once", async (world) => {
    const keys: string[] = [];
    const graph = world.graph(
      world.effect({
        execute: async (_input, { idempotencyKey }) => {
          keys.push(idempotencyKey);
          return { ref: "r" };
        },
      }),
    );
    const processes = [await world.process([graph]), await world.process([graph]), await world.process([graph])];
    const [cs] = processes;
    if (cs === undefined) return;
    const { threadId } = await cs.start(graph, { count: 30 });
    await Promise.all(processes.map((each) => each.work({ until: "idle" })));
    await cs.work({ until: "idle" });
    const intents = await cs.intents(threadId);
    assert.deepEqual(new Set(intents.map(({ status, attempt }) => `${status} ${attempt}`)), new Set(["succeeded 1"]));
    assert.deepEqual(keys.sort(), intents.map(({ id }) => id).sort());
  }),

  backendCase("lets what has begun end when it closes, and begins nothing more", async (world) => {
    const held = gate();
    let calls = 0;
    const graph = world.graph(
      world.effect({
        maxConcurrency: 1,
        execute: async () => {
          calls++;
          await held.pass();
          return { ref: "r" };
        },
      }),
    );
    const cs = await world.process([graph]);
    const { threadId } = await cs.start(graph, { count: 2 });
    const working = cs.work();
    await held.reached();
    const closing = cs.close();
    held.open();
    await Promise.all([closing, working]);
    const other = await world.process([graph]);
    assert.deepEqual((await other.intents(threadId)).map(({ status }) => status).sort(), ["runnable", "succeeded"]);
    assert.equal(calls, 1);
  }),

  backendCase("leaves what a closing process could not finish to the next one", async (world) => {
    const stuck = gate();
    let reason: unknown;
    const graph = world.graph(
      world.effect({
        execute: async (_input, { attempt, signal }) => {
          if (attempt > 1) return { ref: "second" };
          signal.addEventListener("abort", () => {
            reason = signal.reason;
          });
          await stuck.pass();
          return { ref: "first" };
        },
      }),
    );
    const first = await world.process([graph]);
    const { threadId } = await first.start(graph, { count: 1 });
    const working = first.work();
    await stuck.reached();
    await first.close({ timeoutMs: 0 });
    await working;
    assert.equal((reason as { readonly code?: unknown }).code, "LEASE_LOST");
    await world.later(PAST_LEASE_MS);
    const second = await world.process([graph]);
    await second.work({ until: "idle" });
    const { status, output, attempt } = await intentOf(second, threadId);
    assert.deepEqual([status, output, attempt], ["succeeded", { ref: "second" }, 2]);
  }),

  backendCase("runs registered kinds only: what no process serves stays runnable", async (world) => {
    const calls: string[] = [];
    const effect = (name: string) =>
      world.effect({
        execute: async () => {
          calls.push(name);
          return { ref: name };
        },
      });
    const [served, foreign] = [world.graph(effect("served")), world.graph(effect("foreign"))];
    const owner = await world.process([served]);
    const { threadId } = await owner.start(served, { count: 1 });
    const stranger = await world.process([foreign]);
    await stranger.work({ until: "idle" });
    assert.equal((await intentOf(owner, threadId)).status, "runnable");
    assert.deepEqual(calls, []);
    await stranger.close();
    await owner.work({ until: "idle" });
    assert.deepEqual(calls, ["served"]);
  }),

  backendCase("is the only one that can settle its intents, and only under the lease that it holds", async (world) => {
    const held = gate();
    const graph = world.graph(world.effect({ execute: () => held.pass().then(() => ({ ref: "own" })) }));
    const cs = await world.process([graph]);
    const { threadId } = await cs.start(graph, { count: 1 });
    const working = cs.work({ until: "idle" });
    await held.reached();
    const { id, leaseToken, backend } = await intentOf(cs, threadId);
    const database = await postgresDatabase(world.pool, { schema: "countersign", prepare: true });
    const forged = { id, from: "dispatched", status: "failed", action: "intent.failed" } as const;
    for (const [owner, token] of [
      ["somebody-else", leaseToken],
      [backend ?? "", leaseToken - 1],
    ] as const) {
      const settlements = [{ ...forged, leaseToken: token }];
      assert.deepEqual(await settleIntents(database, { backend: owner, worker: "zombie", settlements }), [false]);
    }
    held.open();
    await working;
    assert.deepEqual((await intentOf(cs, threadId)).output, { ref: "own" });
  }),

  backendCase("undoes what a thread did in reverse order, each effect once", async (world) => {
    const done: string[] = [];
    const graph = world.saga(
      world.effect({
        execute: async ({ n }) => {
          if (n === 2) throw new NonRetryableError("no");
          done.push(`do ${n}`);
          return { ref: `${n}` };
        },
        compensate: async ({ input }) => {
          done.push(`undo ${input.n}`);
        },
      }),
    );
    const cs = await world.process([graph]);
    const { threadId } = await cs.start(graph, { count: 3 });
    await cs.work({ until: "idle" });
    const { status } = await cs.result(threadId, { signal: AbortSignal.timeout(10_000) });
    assert.equal(status, "compensated");
    assert.deepEqual(done, ["do 0", "do 1", "undo 1", "undo 0"]);
  }),
];
