import { randomUUID } from "node:crypto";
import pg from "pg";
import { createDatabase, dropDatabase, startPostgres } from "../test/support/postgres.ts";

/** A database of a bench's own, on a real server with `fsync` on. */
export interface BenchDatabase {
  readonly url: string;
  /** A pool on it, closed with the database. */
  pool(options?: pg.PoolConfig): pg.Pool;
}

/** Starts a server for one bench (or uses `DATABASE_URL`), and removes what it made when the bench is done. */
export async function withDatabase<Result>(
  bench: (database: BenchDatabase) => Promise<Result>,
  settings: readonly string[] = [],
): Promise<Result> {
  const server = await startPostgres(settings);
  const name = `countersign_bench_${randomUUID().replaceAll("-", "")}`;
  const pools: pg.Pool[] = [];
  try {
    const url = await createDatabase(server.url, name);
    const pool = (options: pg.PoolConfig = {}): pg.Pool => {
      const made = new pg.Pool({ connectionString: url, max: 10, ...options });
      made.on("error", () => {});
      made.on("connect", (client) => client.on("error", () => {}));
      pools.push(made);
      return made;
    };
    return await bench({ url, pool });
  } finally {
    await Promise.all(pools.map((made) => made.end()));
    await dropDatabase(server.url, name);
    await server.stop();
  }
}
