import type pg from "pg";
import { expect, vi } from "vitest";

/** Resolves when one session stands behind a lock of another: the test may go on with what it meets there. */
export async function somebodyWaits(pool: pg.Pool): Promise<void> {
  const text = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
  await vi.waitFor(async () => expect((await pool.query(text)).rowCount).toBe(1), { timeout: 10_000 });
}
