import type { PGlite, Transaction } from "@electric-sql/pglite";
import type { Database, DatabaseSource, PoolLike, Queryable, Statement, Subscription } from "./client.ts";
import { lockFolder } from "./folder-lock.ts";

/**
 * Postgres in this process, without a server: `countersign({ database: pglite("./.countersign") })`.
 *
 * In a folder it keeps everything that was acknowledged, also over a SIGKILL; without one it lives
 * in memory. A folder belongs to one process at a time: a second one is refused.
 * @param folder where the database lives. Left out: in memory.
 * @throws DatabaseError `DATABASE_LOCKED` when it is opened while another process has the folder.
 */
export function pglite(folder?: string): DatabaseSource {
  return {
    async open(schema) {
      const unlock = folder === undefined ? undefined : lockFolder(folder);
      try {
        const { PGlite } = await import("@electric-sql/pglite");
        const db = folder === undefined ? await PGlite.create() : await PGlite.create(folder);
        return pgliteDatabase(db, schema, async () => {
          await db.close();
          unlock?.();
        });
      } catch (error) {
        unlock?.();
        throw error;
      }
    },
  };
}

/** An open PGlite as a {@link Database}. `close` leaves it open unless it is told how to close it. */
export function pgliteDatabase(db: PGlite, schema: string, close: () => Promise<void> = async () => {}): Database {
  return {
    schema,
    kind: "pglite",
    query: (statement) => run(db, statement),
    transaction: <T>(work: (tx: Queryable) => Promise<T>) =>
      db.transaction(async (tx) => {
        const queryable: Queryable & { readonly inner: Transaction } = {
          inner: tx,
          schema,
          query: (statement) => run(tx, statement),
        };
        return work(queryable);
      }),
    async execute(tx, text) {
      const inner = (tx as { inner?: Transaction }).inner ?? db;
      await inner.exec(text);
    },
    async listen(channel, onNotify): Promise<Subscription> {
      const unlisten = await db.listen(channel, onNotify);
      return { close: () => unlisten() };
    },
    pool: poolOf(db),
    close,
  };
}

async function run<Row extends object>(db: PGlite | Transaction, { text, values }: Statement): Promise<Row[]> {
  const result = await db.query<Row>(text, values as unknown[] | undefined);
  return result.rows;
}

/** `PostgresSaver` asks for a pool; PGlite has one connection, which every client shares. */
function poolOf(db: PGlite): PoolLike {
  const query = async (text: string, values?: unknown[]): Promise<{ rows: unknown[] }> => db.query(text, values);
  return {
    query,
    connect: async () => ({ query, release: () => {} }),
    end: async () => {},
  };
}
