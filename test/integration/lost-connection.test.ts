import { once } from "node:events";
import { setImmediate } from "node:timers/promises";
import pg from "pg";
import { expect, it } from "vitest";
import { postgresDatabase } from "../../src/database/postgres.ts";
import { testDatabase } from "../support/database.ts";

const { pool, url } = await testDatabase();

it("a connection that breaks between two statements fails its transaction, not the process", async () => {
  const database = postgresDatabase(url, { schema: "countersign" });
  const transaction = database.transaction(async (tx) => {
    const [row] = await tx.query<{ pid: number }>({ text: "select pg_backend_pid() as pid" });
    const gone = new pg.Client({ connectionString: url });
    await gone.connect();
    await gone.query("select pg_terminate_backend($1)", [row?.pid]);
    // Until the server has said so, and this process has heard of it, without a query under way.
    await expect
      .poll(async () => (await pool.query("select from pg_stat_activity where pid = $1", [row?.pid])).rowCount)
      .toBe(0);
    await Promise.all([once(gone, "end"), gone.end()]);
    await setImmediate();
    await tx.query({ text: "select 1" });
  });
  await expect(transaction).rejects.toThrow();

  expect(await database.query({ text: "select 1 as one" })).toEqual([{ one: 1 }]);
  await database.close();
});
