import { randomUUID } from "node:crypto";
import { afterAll, afterEach, expect, it, vi } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { type Settlement, settleIntents } from "../../src/database/claims.ts";
import { claimIntent } from "../../src/database/hand-over.ts";
import { postgresDatabase } from "../../src/database/postgres.ts";
import { releaseThreads } from "../../src/database/threads.ts";
import { commit, countersign, NonRetryableError, requestDecision } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { effect, graphOf, MIA, NEEDS_MANAGER } from "../support/effects.ts";
import { gate } from "../support/gate.ts";
import { onlyOne } from "../support/requests.ts";
import { FREE, insertIntent, insertThread } from "../support/rows.ts";
import { endOf, graphWith, type Log, undoable } from "../support/undoing.ts";

/* What was given up, by a rejection, an undoing, a cancellation or a lease that ran out, stays given up. */

const { pool } = await testDatabase();
const cs = await countersign({ database: pool, graphs: [], backend: postgres() });
afterAll(() => cs.close());
const database = postgresDatabase(pool, { schema: "countersign" });

const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));
const open = (graph: ReturnType<typeof graphWith> | ReturnType<typeof graphOf>) =>
  countersign({ database: pool, graphs: [graph], backend: postgres(), onError: (error) => errors.push(error) });

async function dispatched(thread_id: string, columns = {}): Promise<string> {
  const id = await insertIntent(pool, { ...FREE, thread_id, status: "runnable", ...columns });
  await claimIntent(database, {
    ...{ id, backend: "postgres", workflowKey: "mail.send@1", worker: "worker", leaseMs: 60_000 },
  });
  return id;
}

const settle = (...settlements: Settlement[]) =>
  settleIntents(database, { backend: "postgres", worker: "worker", settlements });
const spent = (id: string, leaseToken = 1): Settlement => ({
  ...{ id, leaseToken, from: "dispatched", status: "failed", action: "intent.failed", reasonCode: "attempts_spent" },
});
const statusOf = async (id: string) => (await cs.intent(id))?.status;

it("a dead letter of a group of which another one was rejected cannot be replayed (G5)", async () => {
  const thread_id = await insertThread(pool);
  const group_id = randomUUID();
  const asked = await insertIntent(pool, { thread_id, group_id });
  const letter = await dispatched(thread_id, { group_id });
  await settle(spent(letter));
  await cs.reject(asked, { by: MIA });
  await expect(cs.replay(letter, { by: MIA })).rejects.toMatchObject({ code: "INTENT_STATE" });
  expect(await statusOf(letter)).toBe("failed");
});

it("a dead letter of a cancelled thread cannot be replayed", async () => {
  const thread_id = await insertThread(pool);
  const letter = await dispatched(thread_id);
  await settle(spent(letter));
  await cs.cancel(thread_id, { by: MIA });
  await expect(cs.replay(letter, { by: MIA })).rejects.toMatchObject({ code: "INTENT_STATE" });
  expect(await statusOf(letter)).toBe("failed");
});

it("a sibling of a rejected request that spends its last attempt is possibly done, not a dead letter (rule 16)", async () => {
  const thread_id = await insertThread(pool);
  const group_id = randomUUID();
  const asked = await insertIntent(pool, { thread_id, group_id });
  const running = await dispatched(thread_id, { group_id });
  await cs.reject(asked, { by: MIA });
  await settle(spent(running));
  expect(await statusOf(running)).toBe("cancelled");
});

it("of two reports on one intent in one batch only that of the lease that stands counts (G7)", async () => {
  const thread_id = await insertThread(pool);
  const done = (id: string): Settlement => ({
    ...{ ...spent(id), status: "succeeded", action: "intent.succeeded", output: { ref: "r" } },
  });
  const [first, second] = [await dispatched(thread_id), await dispatched(thread_id)];
  expect(await settle(spent(first, 0), done(first), done(second), spent(second, 0))).toEqual([
    false,
    true,
    true,
    false,
  ]);
  expect(await Promise.all([first, second].map(statusOf))).toEqual(["succeeded", "succeeded"]);
});

it("of two releases of one thread in one batch only that of the lease that stands counts (G7)", async () => {
  const lease = { status: "running", lease_token: 2, lease_expires_at: new Date(Date.now() + 60_000) };
  const threadId = await insertThread(pool, { ...lease, lease_owner: "driver" });
  const release = { threadId, wake: 0, persistLagMs: 0 };
  const failure = { code: "STALE", reasonCode: "STALE", message: "by a driver that is late" };
  const released = await releaseThreads(database, [
    { ...release, leaseToken: 1, status: "failed", error: failure },
    { ...release, leaseToken: 2, status: "completed" },
  ]);
  expect(released).toEqual([undefined, "completed"]);
});

it("an edit after a replay keeps the key that the replay gave (rule 15)", async () => {
  const keys: string[] = [];
  const asked = effect({
    ...{ ...NEEDS_MANAGER, semantics: "at-most-once", idempotencyKey: () => "one-of-its-kind" },
    execute: async (_input, { idempotencyKey }) => {
      keys.push(idempotencyKey);
      if (keys.length === 1) throw new NonRetryableError("not like this");
      return { ref: "second" };
    },
  });
  const graph = graphOf(asked);
  await using own = await open(graph);
  const { threadId, pending } = await own.start(graph, { n: 1 });
  const { id, digest } = onlyOne(pending);
  await own.approve(id, { by: MIA, digest });
  await own.work({ until: "idle" });
  const again = await own.replay(id, { by: MIA });
  await own.edit(id, { n: 2 }, { by: MIA, digest: again.digest });
  const edited = (await own.intents(threadId))[0];
  if (edited?.status === "awaiting_decision") await own.approve(id, { by: MIA, digest: edited.digest });
  await own.work({ until: "idle" });
  expect(keys).toEqual(["one-of-its-kind", again.idempotencyKey]);
  expect(again.idempotencyKey).not.toBe("one-of-its-kind");
});

it("an effect that runs when its thread is to be undone is let end, and not tried again", async () => {
  const log: Log = [];
  const held = gate();
  let aborted = false;
  const slow = undoable(log, {
    retry: { maxAttempts: 5, initialIntervalMs: 0 },
    execute: async ({ n }, { signal }) => {
      log.push(`do ${n}`);
      await held.pass();
      aborted = signal.aborted;
      throw new Error("no answer");
    },
  });
  const body = async () => {
    const [outcome, decision] = await Promise.all([
      commit(slow, { n: 1 }),
      requestDecision({ name: "go-on", payload: {} }),
    ]);
    return `${outcome.status}, ${decision.status}`;
  };
  const graph = graphWith([slow], body, { onReject: "compensate" });
  await using worker = await open(graph);
  await using other = await open(graph);
  const { threadId } = await worker.start(graph, { end: "" });
  const working = worker.work({ until: "idle" });
  await held.reached();
  await other.reject(onlyOne(await other.pending({ threadId })).id, { by: MIA });
  await other.work({ until: "idle" });
  held.open();
  await working;
  await vi.waitFor(async () => {
    await other.work({ until: "idle" });
    expect(await endOf(other, threadId)).toEqual({ status: "compensated", end: "cancelled, rejected" });
  }, 10_000);
  expect([log, aborted]).toEqual([["do 1", "undo 1 undefined: rejected"], false]);
});
