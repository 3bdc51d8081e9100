import { beforeEach, expect, it } from "vitest";
import { takeForHandOver } from "../../../src/database/hand-over.ts";
import { postgresDatabase } from "../../../src/database/postgres.ts";
import { moveClock } from "../../../src/testing/clock.ts";
import { testDatabase } from "../../support/database.ts";
import { FREE, insertIntent, insertThread } from "../../support/rows.ts";

const { pool } = await testDatabase();
const database = postgresDatabase(pool, { schema: "countersign", prepare: true });
const LEASE_MS = 1_000;

beforeEach(() => moveClock(pool, { byMs: 0 }));

/** An intent that Temporal is to carry out, and nobody claims. */
async function insertRunnable(workflowKey: string): Promise<void> {
  const thread_id = await insertThread(pool);
  await insertIntent(pool, { ...FREE, thread_id, workflow_key: workflowKey, status: "runnable", backend: "temporal" });
}

async function isTaken(workflowKey: string, second: number): Promise<boolean> {
  await moveClock(pool, { byMs: second * 1_000 });
  const taken = await takeForHandOver(database, {
    ...{ backend: "temporal", owner: "relay", workflowKeys: [workflowKey], leaseMs: LEASE_MS },
    ...{ limit: 10, maxUnclaimed: 10, graceMs: LEASE_MS },
  });
  return taken.length === 1;
}

it("is repeated once soon, and then rarely, while an orchestrator that lags behind has not claimed the intent", async () => {
  await insertRunnable("late@1");
  const taken: number[] = [];
  for (let second = 0; second <= 35; second++) if (await isTaken("late@1", second)) taken.push(second);
  expect(taken).toEqual([0, 1, 11, 21, 31]);
});

it("is repeated soon where the first one may never have arrived, however long the intent has waited", async () => {
  await insertRunnable("waiting@1");
  expect(await isTaken("waiting@1", 3_600)).toBe(true);
  expect(await isTaken("waiting@1", 3_601)).toBe(true);
});
