import { randomUUID } from "node:crypto";
import { expect, it } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { endCompensation, lockThreadIntents, settleThreadCompensation } from "../../src/database/compensation.ts";
import { applyDecision, insertDecision, lockWithGroup } from "../../src/database/decisions.ts";
import { loadIntent } from "../../src/database/intents.ts";
import { postgresDatabase } from "../../src/database/postgres.ts";
import { expireIntents } from "../../src/database/sweep.ts";
import { claimThreads, releaseThreads } from "../../src/database/threads.ts";
import { countersign } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { FREE, insertIntent, insertThread } from "../support/rows.ts";
import { somebodyWaits } from "../support/somebody-waits.ts";

/* What a statement decides from other tables, when it had to wait for its row meanwhile. */

const { pool } = await testDatabase();
await (await countersign({ database: pool, graphs: [], backend: postgres() })).close();
const database = postgresDatabase(pool, { schema: "countersign" });

it("a thread that ends while its compensation ends is compensated, whichever of the two was first", async () => {
  const lease = {
    status: "running",
    lease_owner: "driver",
    lease_token: 1,
    lease_expires_at: new Date(Date.now() + 60_000),
  };
  const thread_id = await insertThread(pool, lease);
  const request = await insertIntent(pool, {
    ...{ ...FREE, thread_id, kind: "compensation", commitment: "countersign.compensation" },
    ...{ status: "awaiting_external", payload: JSON.stringify({ reason: "rejected" }), backend: null },
  });
  let releasing: ReturnType<typeof releaseThreads> | undefined;
  await database.transaction(async (tx) => {
    await lockThreadIntents(tx, thread_id);
    releasing = releaseThreads(database, [
      { threadId: thread_id, leaseToken: 1, wake: 0, status: "completed", persistLagMs: 0 },
    ]);
    await somebodyWaits(pool);
    const intent = await loadIntent(tx, request);
    if (intent === undefined) throw new Error("The request is gone");
    await endCompensation(tx, { request: intent, status: "succeeded" });
    await settleThreadCompensation(tx, { threadId: thread_id, open: false });
  });
  expect(await releasing).toEqual(["compensated"]);
});

it("a thread is not given its input again when its checkpoint was written during the claim", async () => {
  const thread_id = await insertThread(pool, { status: "ready" });
  // The claim stands between its look at the thread and its answer, for as long as somebody holds this lock.
  const KEY = 4_711;
  await pool.query(`create function pause() returns trigger language plpgsql as
    $$ begin perform pg_advisory_xact_lock(${KEY}); return new; end $$`);
  await pool.query("create trigger pause before update on countersign.threads for each row execute function pause()");
  const holder = await pool.connect();
  await holder.query("select pg_advisory_lock($1)", [KEY]);
  const claiming = claimThreads(database, { driver: "driver", leaseMs: 60_000, graphs: ["raw@1"], limit: 1 });
  await somebodyWaits(pool);
  await pool.query(
    `insert into countersign.checkpoints (thread_id, checkpoint_ns, checkpoint_id, checkpoint, metadata)
     values ($1, '', $2, '{}', '{}')`,
    [thread_id, randomUUID()],
  );
  await holder.query("select pg_advisory_unlock($1)", [KEY]);
  holder.release();
  const [claimed] = await claiming;
  expect(claimed).toMatchObject({ thread_id, begun: true });
});

it("nothing of a commitAll is cancelled when its overdue request was approved just before it would have expired", async () => {
  const thread_id = await insertThread(pool);
  const group = { thread_id, group_id: randomUUID() };
  const asked = await insertIntent(pool, { ...group, expires_at: new Date(0) });
  const free = await insertIntent(pool, { ...group, ...FREE, status: "runnable" });
  let expiring: Promise<number> | undefined;
  // A transaction that began before the deadline: what it was asked in time counts.
  await database.transaction(async (tx) => {
    await lockWithGroup(tx, asked);
    expiring = database.transaction(expireIntents);
    await somebodyWaits(pool);
    const approval = {
      intentId: asked,
      verdict: "approve",
      digest: "d-1",
      previousDigest: null,
      reason: null,
    } as const;
    await insertDecision(tx, { ...approval, by: { id: "mia", roles: [] } });
    await applyDecision(tx, {
      id: asked,
      status: "runnable",
      action: "decision.approved",
      by: "mia",
      reasonCode: null,
    });
  });
  expect(await expiring).toBe(0);
  const statuses = await Promise.all([asked, free].map(async (id) => (await loadIntent(database, id))?.status));
  expect(statuses).toEqual(["runnable", "runnable"]);
});
