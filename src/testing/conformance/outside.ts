import assert from "node:assert/strict";
import { pending } from "../../pending.ts";
import {
  type BackendCase,
  backendCase,
  gate,
  intentOf,
  MIA,
  NEEDS_MANAGER,
  outcomesOf,
  PAST_LEASE_MS,
  type TestCommitment,
  type World,
} from "./world.ts";

/** What ends an intent from outside its handler: a webhook, a poll, the clock, a person. */
export const outside: readonly BackendCase[] = [
  backendCase("waits for the provider after a handler has answered that the effect is under way", async (world) => {
    const { cs, threadId } = await underWay(world);
    await world.later(PAST_LEASE_MS);
    await cs.work({ until: "idle" });
    const { status, attempt, leaseOwner } = await intentOf(cs, threadId);
    assert.deepEqual([status, attempt, leaseOwner], ["awaiting_external", 1, null]);
  }),

  backendCase(
    "ends a pending effect by the reference that the provider gave, however often it is told",
    async (world) => {
      const { cs, threadId, commitment } = await underWay(world);
      const ref = { commitment, externalRef: world.scope };
      await Promise.all([1, 2, 3].map(() => cs.complete(ref, { output: { ref: "signed" }, receipt: { seal: 1 } })));
      await cs.work({ until: "idle" });
      const { status, output, receipt } = await intentOf(cs, threadId);
      assert.deepEqual([status, output, receipt], ["succeeded", { ref: "signed" }, { seal: 1 }]);
      assert.equal((await outcomesOf(cs, threadId))[0]?.status, "succeeded");
    },
  ),

  backendCase("ends a pending effect as failed when the provider says so", async (world) => {
    const { cs, threadId, commitment } = await underWay(world);
    await cs.fail({ commitment, externalRef: world.scope }, { reason: "The signer declined" });
    await cs.work({ until: "idle" });
    assert.equal((await outcomesOf(cs, threadId))[0]?.status, "failed");
  }),

  backendCase("counts a completion that is faster than the handler's answer once", async (world) => {
    const held = gate();
    const graph = world.graph(world.effect({ execute: () => held.pass().then(() => ({ ref: "handler" })) }));
    const worker = await world.process([graph]);
    const webhook = await world.process([graph]);
    const { threadId } = await worker.start(graph, { count: 1 });
    const working = worker.work({ until: "idle" });
    await held.reached();
    await webhook.complete({ intentId: (await intentOf(webhook, threadId)).id }, { output: { ref: "webhook" } });
    held.open();
    await working;
    assert.deepEqual((await intentOf(webhook, threadId)).output, { ref: "webhook" });
    const done = (await webhook.audit.list(threadId)).filter(({ action }) => action === "intent.succeeded");
    assert.equal(done.length, 1);
    for (const error of world.errors.splice(0)) assert.equal((error as { code?: unknown }).code, "LEASE_LOST");
  }),

  backendCase("expires a pending effect at the time that its handler gave", async (world) => {
    const { cs, threadId } = await underWay(world, { expiresAt: world.inMs(60_000) });
    await world.later(50_000);
    await cs.work({ until: "idle" });
    assert.equal((await intentOf(cs, threadId)).status, "awaiting_external");
    await world.later(20_000);
    await cs.work({ until: "idle" });
    assert.equal((await outcomesOf(cs, threadId))[0]?.status, "expired");
  }),

  backendCase("asks the provider at the commitment's own interval until the effect has ended", async (world) => {
    const asked: unknown[] = [];
    const { cs, threadId } = await underWay(world, {
      pollIntervalMs: 60_000,
      poll: async (question) => {
        asked.push(question);
        return asked.length < 2 ? { status: "pending" } : { status: "succeeded", output: { ref: "seen" } };
      },
    });
    assert.deepEqual(asked, []);
    for (const times of [1, 2]) {
      await world.later(60_000);
      await cs.work({ until: "idle" });
      await cs.work({ until: "idle" });
      assert.equal(asked.length, times);
    }
    assert.deepEqual(asked[0], { externalRef: world.scope, input: { n: 0 } });
    assert.equal((await outcomesOf(cs, threadId))[0]?.status, "succeeded");
  }),

  backendCase("never calls the handler of what was cancelled before it started", async (world) => {
    let calls = 0;
    const execute = async () => {
      calls++;
      return { ref: "r" };
    };
    const graphs = [{}, NEEDS_MANAGER].map((classes) => world.graph(world.effect({ ...classes, execute })));
    const cs = await world.process(graphs);
    for (const graph of graphs) {
      const { threadId } = await cs.start(graph, { count: 1 });
      await cs.cancelIntent((await intentOf(cs, threadId)).id, { by: MIA });
      await cs.work({ until: "idle" });
      assert.equal((await outcomesOf(cs, threadId))[0]?.status, "cancelled");
    }
    assert.equal(calls, 0);
  }),

  backendCase("tells a running handler of its cancellation, and does not try it again", async (world) => {
    let calls = 0;
    const called = gate();
    const graph = world.graph(
      world.effect({
        execute: (_input, { signal }) => {
          calls++;
          void called.pass();
          return new Promise((_resolve, reject) =>
            signal.addEventListener("abort", () => reject(new Error("stopped"))),
          );
        },
      }),
    );
    const cs = await world.process([graph], { leaseMs: 3_000 });
    const { threadId } = await cs.start(graph, { count: 1 });
    const stop = new AbortController();
    const working = cs.work({ signal: stop.signal });
    await called.reached();
    await cs.cancelIntent((await intentOf(cs, threadId)).id, { by: MIA });
    assert.equal((await outcomesOf(cs, threadId))[0]?.status, "cancelled");
    stop.abort();
    await working;
    assert.equal(calls, 1);
  }),

  backendCase("cancels a pending effect: the graph is told, and a later webhook is refused", async (world) => {
    const { cs, threadId, commitment } = await underWay(world);
    await cs.cancelIntent((await intentOf(cs, threadId)).id, { by: MIA });
    await cs.work({ until: "idle" });
    assert.equal((await outcomesOf(cs, threadId))[0]?.status, "cancelled");
    const late = cs.complete({ commitment, externalRef: world.scope }, { output: { ref: "late" } });
    await assert.rejects(late, { code: "INTENT_ENDED" });
  }),
];

/** A thread whose one effect was carried out until it waits for the provider. */
async function underWay(
  world: World,
  declared: Partial<Parameters<World["effect"]>[0]> & { readonly expiresAt?: Date } = {},
) {
  const { expiresAt, ...more } = declared;
  const commitment: TestCommitment = world.effect({
    execute: async () => pending({ externalRef: world.scope, ...(expiresAt === undefined ? {} : { expiresAt }) }),
    ...more,
  });
  const graph = world.graph(commitment);
  const cs = await world.process([graph]);
  const { threadId } = await cs.start(graph, { count: 1 });
  await cs.work({ until: "idle" });
  return { cs, threadId, commitment };
}
