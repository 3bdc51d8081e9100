import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, expect, it, vi } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { rescueIntents, settleIntents } from "../../src/database/claims.ts";
import type { Queryable } from "../../src/database/client.ts";
import { cancelIntents } from "../../src/database/decisions.ts";
import { claimIntent } from "../../src/database/hand-over.ts";
import { postgresDatabase } from "../../src/database/postgres.ts";
import { expireIntents } from "../../src/database/sweep.ts";
import { type Countersign, countersign } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { MIA } from "../support/effects.ts";
import { FREE, insertIntent, insertThread } from "../support/rows.ts";

/* A cancellation, or a rejection, that meets a worker half-way: what is given up is not tried again. */

const { pool, url } = await testDatabase();
const open = (database: pg.Pool): Promise<Countersign> => countersign({ database, graphs: [], backend: postgres() });
const cs = await open(pool);
afterAll(() => cs.close());
const database = postgresDatabase(pool, { schema: "countersign" });

const WORKFLOW_KEY = "mail.send@1";
const BY = { by: "mia", byType: "human", reasonCode: "cancelled" };

/** Intents that may run, the smallest id first: locks are taken in that order. */
async function runnable(thread_id: string, count: number, columns = {}): Promise<string[]> {
  const insert = () => insertIntent(pool, { ...FREE, thread_id, status: "runnable", ...columns });
  return (await Promise.all(Array.from({ length: count }, insert))).sort();
}

const claim = (id: string) =>
  claimIntent(database, { id, backend: "postgres", workflowKey: WORKFLOW_KEY, worker: "worker", leaseMs: 60_000 });

/** What its worker reports of a handler that failed: it is to be tried again. */
const tryAgain = (id: string, db: Queryable = database) => {
  const held = { id, leaseToken: 1, from: "dispatched" } as const;
  const again = { status: "runnable", action: "intent.attempted", reasonCode: "retry", delayMs: 0 } as const;
  return settleIntents(db, { backend: "postgres", worker: "worker", settlements: [{ ...held, ...again }] });
};

const statusOf = async (id: string) => (await cs.intent(id))?.status;

/** A transaction that holds what it has locked until it is let go. */
async function holding(lock: string, id: string) {
  const client = await pool.connect();
  const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
  await client.query("begin");
  await client.query(`select from countersign.${lock} = $1 for no key update`, [id]);
  const letGo = async () => {
    await client.query("commit");
    client.release();
  };
  return { pid: rows[0]?.pid as number, letGo };
}

/** Resolves to the session that waits for this one, as soon as there is one. */
const waiterFor = (pid: number) =>
  vi.waitFor(async () => {
    const text = "select pid from pg_stat_activity where $1 = any(pg_blocking_pids(pid))";
    const { rows } = await pool.query<{ pid: number }>(text, [pid]);
    expect(rows).toHaveLength(1);
    return rows[0]?.pid as number;
  });

/** A process with one connection: what it says after a transaction can be held back. */
const alone = await (async () => {
  const one = new pg.Pool({ connectionString: url, max: 1 });
  const handle = await open(one);
  afterAll(async () => {
    await handle.close();
    await one.end();
  });
  return {
    cs: handle,
    /** Lets its transaction go on, and it say nothing more until something else has come about. */
    async once(goOn: () => Promise<void>, other: Promise<unknown>): Promise<void> {
      const next = one.connect();
      await goOn();
      await other;
      (await next).release();
    },
  };
})();

it("refuses to cancel what has ended or never was, as often at once as the pool has connections", async () => {
  const small = new pg.Pool({ connectionString: url, max: 2 });
  const crowded = await open(small);
  const ended = await insertThread(pool, { status: "completed" });
  const cancels = [ended, "nobody", ended, "nobody"].map((threadId) => crowded.cancel(threadId, { by: MIA }));
  const codes = (await Promise.allSettled(cancels)).map((end) => end.status === "rejected" && end.reason.code);
  expect(codes).toEqual(["THREAD_STATE", "THREAD_NOT_FOUND", "THREAD_STATE", "THREAD_NOT_FOUND"]);
  await crowded.close();
  await small.end();
});

it("cancels an effect of a cancelled thread whose retry was about to be recorded", async () => {
  const threadId = await insertThread(pool);
  const [id = ""] = await runnable(threadId, 1);
  await claim(id);
  const thread = await holding("threads where thread_id", threadId);
  const cancelling = alone.cs.cancel(threadId, { by: MIA });
  const canceller = await waiterFor(thread.pid);
  const settling = tryAgain(id);
  await waiterFor(canceller);
  await alone.once(thread.letGo, settling);
  await cancelling;
  expect(await statusOf(id)).toBe("cancelled");
});

it("cancels an effect of a cancelled thread that was recorded and claimed in between", async () => {
  const threadId = await insertThread(pool);
  const thread = await holding("threads where thread_id", threadId);
  const cancelling = cs.cancel(threadId, { by: MIA });
  await waiterFor(thread.pid);
  const [first = "", second = ""] = await runnable(threadId, 2);
  const intent = await holding("execution_intents where id", first);
  await thread.letGo();
  await waiterFor(intent.pid);
  await claim(second);
  await intent.letGo();
  await cancelling;
  await tryAgain(second);
  expect(await Promise.all([first, second].map(statusOf))).toEqual(["cancelled", "cancelled"]);
});

it("cancels a single effect whose retry was about to be recorded, and says so", async () => {
  const [id = "", sibling = ""] = await runnable(await insertThread(pool), 2, { group_id: randomUUID() });
  await claim(id);
  const other = await holding("execution_intents where id", sibling);
  const cancelling = alone.cs.cancelIntent(id, { by: MIA });
  const canceller = await waiterFor(other.pid);
  const settling = tryAgain(id);
  await waiterFor(canceller);
  await alone.once(other.letGo, settling);
  await cancelling;
  expect(await Promise.all([id, sibling].map(statusOf))).toEqual(["cancelled", "cancelled"]);
});

it("cancels an effect whose retry is being recorded, in one statement", async () => {
  const [id = ""] = await runnable(await insertThread(pool), 1);
  await claim(id);
  let cancelling: Promise<string[]> | undefined;
  await database.transaction(async (tx) => {
    const [worker] = await tx.query<{ pid: number }>({ text: "select pg_backend_pid() as pid" });
    await tryAgain(id, tx);
    cancelling = cancelIntents(database, { ids: [id], ...BY });
    await waiterFor(worker?.pid as number);
  });
  expect(await cancelling).toEqual([id]);
  expect(await statusOf(id)).toBe("cancelled");
});

it.each(["retry", "lost worker"])(
  "does not run the sibling of a rejected intent again after a %s (G5)",
  async (end) => {
    const threadId = await insertThread(pool);
    const group_id = randomUUID();
    const asked = await insertIntent(pool, { thread_id: threadId, group_id });
    const [running = ""] = await runnable(threadId, 1, { group_id });
    await claim(running);
    await cs.reject(asked, { by: MIA });
    if (end === "retry") await tryAgain(running);
    else {
      const text = "update countersign.execution_intents set lease_expires_at = '-infinity' where id = $1";
      await pool.query(text, [running]);
      const kinds = [{ workflowKey: WORKFLOW_KEY, maxAttempts: 5 }];
      await rescueIntents(database, { backend: "postgres", worker: "other", kinds, id: running });
    }
    expect(await Promise.all([asked, running].map(statusOf))).toEqual(["rejected", "cancelled"]);
  },
);

it("asks the sibling of an expired intent to stop, and does not run it again (G5)", async () => {
  const threadId = await insertThread(pool);
  const group_id = randomUUID();
  const overdue = await insertIntent(pool, { thread_id: threadId, group_id, expires_at: new Date(0) });
  const [running = ""] = await runnable(threadId, 1, { group_id });
  await claim(running);
  await database.transaction(expireIntents);
  await tryAgain(running);
  expect(await Promise.all([overdue, running].map(statusOf))).toEqual(["expired", "cancelled"]);
});
