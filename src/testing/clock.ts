import type pg from "pg";

/**
 * Moves the database's clock for every connection at once: what Countersign calls "now" is from then
 * on this much later. For tests of expiry, timers, leases and retries; never for production data.
 * @param byMs from the real time on; 0 puts the clock right again. Milliseconds.
 */
export async function moveClock(
  database: Pick<pg.Pool, "query">,
  { byMs, schema = "countersign" }: { readonly byMs: number; readonly schema?: string },
): Promise<void> {
  if (!/^[a-z_][a-z0-9_]{0,50}$/.test(schema) || !Number.isSafeInteger(byMs)) throw new RangeError("schema or byMs");
  await database.query(
    `create or replace function ${schema}.clock() returns timestamptz
     language sql stable as $$ select now() + interval '${byMs} milliseconds' $$`,
  );
}
