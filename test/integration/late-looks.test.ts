import { randomUUID } from "node:crypto";
import { expect, it, vi } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { endCompensation, lockThreadIntents, settleThreadCompensation } from "../../src/database/compensation.ts";
import { loadIntent } from "../../src/database/intents.ts";
import { postgresDatabase } from "../../src/database/postgres.ts";
import { claimThreads, releaseThreads } from "../../src/database/threads.ts";
import { countersign } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { FREE, insertIntent, insertThread } from "../support/rows.ts";

/* What a statement decides from other tables, when it had to wait for its row meanwhile. */

const { pool } = await testDatabase();
await (await countersign({ database: pool, graphs: [], backend: postgres() })).close();
const database = postgresDatabase(pool, { schema: "countersign" });

const somebodyWaits = () =>
  vi.waitFor(async () => {
    const text = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    expect((await pool.query(text)).rowCount).toBe(1);
  });

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
    await somebodyWaits();
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
  await somebodyWaits();
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
