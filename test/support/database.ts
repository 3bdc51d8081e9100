import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, inject } from "vitest";
import { createDatabase, dropDatabase } from "./postgres.ts";

/** A database for this test file alone, migrated already, and dropped when the file is done. */
export async function testDatabase(): Promise<{ readonly url: string; readonly pool: pg.Pool }> {
  const serverUrl = inject("serverUrl");
  const name = `countersign_test_${randomUUID().replaceAll("-", "")}`;
  const url = await createDatabase(serverUrl, name, inject("template"));
  const pool = new pg.Pool({ connectionString: url, max: 20 });
  pool.on("error", () => {});
  afterAll(async () => {
    await pool.end();
    await dropDatabase(serverUrl, name);
  });
  return { url, pool };
}
