import assert from "node:assert/strict";
import { NonRetryableError } from "../../errors.ts";
import type { Reconciliation } from "../../handlers.ts";
import {
  type Answered,
  type BackendCase,
  backendCase,
  gate,
  intentOf,
  outcomesOf,
  PAST_LEASE_MS,
  type World,
} from "./world.ts";

/** Workers that are lost, and effects of which nobody knows whether they were done. */
export const unknown: readonly BackendCase[] = [
  backendCase(
    "calls an at-most-once effect unknown when its worker is lost, and never sends it again",
    async (world) => {
      const { cs, threadId, calls } = await lost(world);
      const intent = await intentOf(cs, threadId);
      assert.deepEqual([intent.status, intent.error?.code], ["unknown", "WORKER_LOST"]);
      await world.later(PAST_LEASE_MS);
      await cs.work({ until: "idle" });
      assert.equal((await intentOf(cs, threadId)).status, "unknown");
      assert.deepEqual(calls, [intent.id]);
    },
  ),

  backendCase("settles an unknown effect as done when the provider says that it was", async (world) => {
    const asked: unknown[] = [];
    const { cs, threadId, calls } = await lost(world, async (question) => {
      asked.push(question);
      return { status: "succeeded", output: { ref: "found" }, receipt: { id: "r-1" } };
    });
    const intent = await intentOf(cs, threadId);
    assert.deepEqual([intent.status, intent.output, intent.receipt], ["succeeded", { ref: "found" }, { id: "r-1" }]);
    assert.deepEqual(asked, [{ idempotencyKey: intent.id, input: { n: 0 } }]);
    assert.equal(calls.length, 1);
    assert.equal((await outcomesOf(cs, threadId))[0]?.status, "succeeded");
  }),

  backendCase(
    "fails an unknown effect, and does not send it, when the provider says that it was not done",
    async (world) => {
      const { cs, threadId, calls } = await lost(world, async () => ({ status: "not-done" }));
      const intent = await intentOf(cs, threadId);
      assert.deepEqual([intent.status, intent.error?.code, calls.length], ["failed", "NOT_DONE", 1]);
    },
  ),

  backendCase("asks the provider again, later, for as long as it does not know", async (world) => {
    const answers: Reconciliation<Answered>[] = [{ status: "unknown" }, { status: "unknown" }];
    let asked = 0;
    const { cs, threadId } = await lost(
      world,
      async () => answers[asked++] ?? { status: "succeeded", output: { ref: "found" } },
    );
    for (const times of [1, 2]) {
      await cs.work({ until: "idle" });
      assert.equal(asked, times);
      assert.equal((await intentOf(cs, threadId)).status, "unknown");
      await world.later(60_000);
    }
    await cs.work({ until: "idle" });
    assert.equal((await intentOf(cs, threadId)).status, "succeeded");
  }),

  backendCase("lets a person settle an unknown effect, as done only with the provider's receipt", async (world) => {
    const { cs, threadId } = await lost(world);
    const ref = { intentId: (await intentOf(cs, threadId)).id };
    await assert.rejects(cs.complete(ref, { output: { ref: "seen" } }), { code: "INTENT_STATE" });
    await cs.complete(ref, { output: { ref: "seen" }, receipt: { page: 3 } });
    await cs.work({ until: "idle" });
    assert.equal((await outcomesOf(cs, threadId))[0]?.status, "succeeded");
  }),

  backendCase(
    "ends an at-most-once call that failed without saying whether it was done as unknown, else as failed",
    async (world) => {
      const calls: string[] = [];
      const throwing = (error: Error) =>
        world.graph(
          world.effect({
            semantics: "at-most-once",
            execute: async () => {
              calls.push(error.message);
              throw error;
            },
          }),
        );
      const [doubtful, definite] = [
        throwing(new Error("socket hang up")),
        throwing(new NonRetryableError("The account is closed")),
      ];
      const cs = await world.process([doubtful, definite]);
      const threads = [await cs.start(doubtful, { count: 1 }), await cs.start(definite, { count: 1 })];
      await cs.work({ until: "idle" });
      const intents = await Promise.all(threads.map(({ threadId }) => intentOf(cs, threadId)));
      assert.deepEqual(
        intents.map(({ status }) => status),
        ["unknown", "failed"],
      );
      assert.equal(calls.length, 2);
    },
  ),

  backendCase(
    "runs an at-least-once effect of a lost worker again under its key, and refuses the zombie's answer",
    async (world) => {
      const keys: string[] = [];
      const [stuck, second] = [gate(), gate()];
      const graph = world.graph(
        world.effect({
          execute: async (_input, { idempotencyKey, attempt }) => {
            keys.push(idempotencyKey);
            await (attempt === 1 ? stuck : second).pass();
            return { ref: attempt === 1 ? "zombie" : "second" };
          },
        }),
      );
      const zombie = await world.process([graph]);
      const cs = await world.process([graph]);
      const { threadId } = await zombie.start(graph, { count: 1 });
      const working = zombie.work({ until: "idle" });
      await stuck.reached();
      await world.later(PAST_LEASE_MS);
      const rescuing = cs.work({ until: "idle" });
      await second.reached();
      stuck.open();
      second.open();
      await Promise.all([working, rescuing]);
      const intent = await intentOf(cs, threadId);
      assert.deepEqual([intent.status, intent.output, intent.attempt], ["succeeded", { ref: "second" }, 2]);
      assert.deepEqual(keys, [intent.id, intent.id]);
      const done = (await cs.audit.list(threadId)).filter(({ action }) => action === "intent.succeeded");
      assert.equal(done.length, 1);
      for (const error of world.errors.splice(0)) assert.equal((error as { code?: unknown }).code, "LEASE_LOST");
    },
  ),
];

type Reconcile = (asked: { idempotencyKey: string; input: { n: number } }) => Promise<Reconciliation<Answered>>;

/** An at-most-once effect whose first process ends with the call under way, and a second one that has looked at it. */
async function lost(world: World, reconcile?: Reconcile) {
  const calls: string[] = [];
  const stuck = gate();
  const graph = world.graph(
    world.effect({
      semantics: "at-most-once",
      ...(reconcile === undefined ? {} : { reconcile }),
      execute: async (_input, { idempotencyKey }) => {
        calls.push(idempotencyKey);
        await stuck.pass();
        return { ref: "late" };
      },
    }),
  );
  const dying = await world.process([graph]);
  const { threadId } = await dying.start(graph, { count: 1 });
  const working = dying.work({ until: "idle" });
  await stuck.reached();
  await dying.close({ timeoutMs: 0 });
  await working;
  await world.later(PAST_LEASE_MS);
  const cs = await world.process([graph]);
  await cs.work({ until: "idle" });
  return { cs, threadId, calls };
}
