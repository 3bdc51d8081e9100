import assert from "node:assert/strict";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import {
  type BackendCase,
  type BackendUnderTest,
  backendCase,
  intentOf,
  PAST_LEASE_MS,
  type TestCommitment,
  World,
} from "./world.ts";

/** What a process that a case kills is told; `spawn` hands it on as text. */
interface Job {
  readonly scope: string;
  readonly commitment: string;
  readonly semantics: "at-least-once" | "at-most-once";
}

/** Short, so that a case can outwait it, and long enough for a busy machine to renew it. */
const SHORT_LEASE_MS = 2_000;
const CALLED = "called";

/** Processes that end by SIGKILL with a call under way, and calls that outlast their lease. */
export const killed: readonly BackendCase[] = [
  backendCase("runs an at-least-once effect again, under its key, when its process was killed", async (world) => {
    const keys: string[] = [];
    const effect = world.effect({
      execute: async (_input, { idempotencyKey }) => {
        keys.push(idempotencyKey);
        return { ref: "second" };
      },
    });
    const { status, output, attempt, id } = await killedInTheCall(world, effect);
    assert.deepEqual([status, output, attempt], ["succeeded", { ref: "second" }, 2]);
    assert.deepEqual(keys, [id]);
  }),

  backendCase("never sends an at-most-once effect again whose process was killed: it is unknown", async (world) => {
    let calls = 0;
    const effect = world.effect({
      semantics: "at-most-once",
      execute: async () => {
        calls++;
        return { ref: "second" };
      },
    });
    const { status, error } = await killedInTheCall(world, effect);
    assert.deepEqual([status, error?.code, calls], ["unknown", "WORKER_LOST", 0]);
  }),

  backendCase("renews the lease of a call that outlasts it, so that nobody else makes the call", async (world) => {
    let calls = 0;
    const leaseEnd = async (id: string): Promise<number> => {
      const text = "select lease_expires_at from countersign.execution_intents where id = $1";
      return (await world.pool.query<{ lease_expires_at: Date }>(text, [id])).rows[0]?.lease_expires_at.getTime() ?? 0;
    };
    const graph = world.graph(
      world.effect({
        execute: async (_input, { intentId }) => {
          calls++;
          // Past its first end, and by then whoever looks for lost leases has looked.
          const end = await leaseEnd(intentId);
          while ((await leaseEnd(intentId)) < end + SHORT_LEASE_MS) await delay(50);
          return { ref: "r" };
        },
      }),
    );
    const [cs, other] = [
      await world.process([graph], { leaseMs: SHORT_LEASE_MS }),
      await world.process([graph], { leaseMs: SHORT_LEASE_MS, pollIntervalMs: 100 }),
    ];
    const { threadId } = await cs.start(graph, { count: 1 });
    const stop = new AbortController();
    const working = [cs.work({ signal: stop.signal }), other.work({ signal: stop.signal })];
    await cs.result(threadId, { signal: AbortSignal.timeout(30_000) });
    stop.abort();
    await Promise.all(working);
    const { status, attempt } = await intentOf(cs, threadId);
    assert.deepEqual([status, attempt, calls], ["succeeded", 1, 1]);
  }),
];

/** An intent whose first process was killed in the call, when a second one has looked at it. */
async function killedInTheCall(world: World, effect: TestCommitment) {
  const graph = world.graph(effect);
  const cs = await world.process([graph], { leaseMs: SHORT_LEASE_MS });
  const { threadId } = await cs.start(graph, { count: 1 });
  const job: Job = { scope: world.scope, commitment: effect.name, semantics: effect.semantics };
  const child = world.spawn(JSON.stringify(job));
  const ended = once(child, "exit");
  const called = once(child.stdout, "data");
  const [said] = await Promise.race([called, ended.then(([code]) => [`it ended with code ${code} before its call`])]);
  assert.equal(String(said).trim(), CALLED);
  child.kill("SIGKILL");
  await ended;
  await world.later(PAST_LEASE_MS);
  await cs.work({ until: "idle" });
  return intentOf(cs, threadId);
}

/**
 * The other half of the cases that kill a process: takes the work of `job` up and never ends its call.
 * A script of yours calls it, which `spawn` starts with the job as an argument (see {@link BackendUnderTest}).
 */
export async function conformanceProcess(
  job: string,
  { pool, backend }: Pick<BackendUnderTest, "pool" | "backend">,
): Promise<void> {
  const { scope, commitment, semantics } = JSON.parse(job) as Job;
  const world = new World({ pool, backend, spawn: refuse }, scope);
  const effect = world.effect({
    name: commitment,
    semantics,
    execute: () => {
      process.stdout.write(`${CALLED}\n`);
      return new Promise(() => {});
    },
  });
  const cs = await world.process([world.graph(effect)], { leaseMs: SHORT_LEASE_MS });
  await cs.work();
}

function refuse(): never {
  throw new Error("A process that is to be killed starts no other one");
}
