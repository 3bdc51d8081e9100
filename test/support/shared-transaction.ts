import type pg from "pg";
import type { Database, Queryable, Statement } from "../../src/database/client.ts";

/**
 * A database whose every transaction is a savepoint of the one that `client` is in: what is committed
 * here is undone or kept together with it. One commit then carries hundreds of lives.
 */
export function sharedTransaction(client: pg.PoolClient, schema = "countersign"): Database {
  const queryable: Queryable = {
    schema,
    async query<Row extends object>({ text, values }: Statement): Promise<Row[]> {
      return (await client.query<Row>(text, values as unknown[])).rows;
    },
  };
  const refuse = (): never => {
    throw new Error("not in a shared transaction");
  };
  return {
    ...queryable,
    kind: "postgres",
    pool: { query: refuse, connect: refuse, end: refuse },
    async transaction(work) {
      await client.query("savepoint one_call");
      try {
        const result = await work(queryable);
        await client.query("release savepoint one_call");
        return result;
      } catch (error) {
        await client.query("rollback to savepoint one_call");
        throw error;
      }
    },
    execute: refuse,
    listen: refuse,
    close: async () => {},
  };
}
