import pg from "pg";
import type { Database, PoolLike, Queryable, Statement, Subscription } from "./client.ts";
import { translateUnavailable } from "./unavailable.ts";

/** How long to wait before a lost LISTEN connection is opened again. */
const RECONNECT_MS = 1_000;

/** Two transactions met (serialization failure, deadlock): the one that lost is run again. */
const RETRYABLE = new Set(["40001", "40P01"]);
const MAX_ATTEMPTS = 3;

/**
 * A host that freezes or vanishes between two statements keeps its row locks until TCP gives the connection up, hours
 * later, and whoever wants those rows waits with it. Ours never pause for long: the server ends one that does.
 */
const BEGIN = "begin; set local idle_in_transaction_session_timeout = '15s'";

export interface PostgresDatabaseOptions {
  readonly schema: string;
  /** Named prepared statements. Switch off behind pgbouncer in transaction mode. Defaults to true. */
  readonly prepare?: boolean;
  /** Where to LISTEN, if not where everything else goes: straight to the server, past a pooler. */
  readonly listenUrl?: string | undefined;
}

/** A Postgres (14 or newer) behind a pool: ours from a URL, or the caller's own. */
export function postgresDatabase(source: string | pg.Pool, options: PostgresDatabaseOptions): Database {
  const prepare = options.prepare ?? true;
  const pool = typeof source === "string" ? new pg.Pool({ connectionString: source, max: 10 }) : source;
  // An idle connection that breaks is replaced by the pool; without a listener it would end the process.
  if (typeof source === "string") pool.on("error", () => {});
  const { schema } = options;

  return {
    schema,
    query: (statement) => retrying(() => runner(pool, schema, prepare).query(statement)),
    kind: "postgres",
    pool: pool as unknown as PoolLike,
    transaction: (work) => retrying(() => runTransaction(pool, work, (client) => runner(client, schema, prepare))),
    async execute(tx, text) {
      await tx.query({ text });
    },
    listen: (channel, onNotify, onGap) => {
      const at = options.listenUrl === undefined ? pool.options : { connectionString: options.listenUrl };
      return listen(at, channel, onNotify, onGap).catch((error: unknown) => {
        throw translateUnavailable(error);
      });
    },
    async close() {
      if (typeof source === "string") await pool.end();
    },
  };
}

/** What the database rolled back because of another transaction is simply run again; the rest is said in our words. */
async function retrying<T>(run: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await run();
    } catch (error) {
      if (attempt < MAX_ATTEMPTS && RETRYABLE.has((error as { code?: string }).code ?? "")) continue;
      throw translateUnavailable(error);
    }
  }
}

async function runTransaction<T>(
  pool: pg.Pool,
  work: (tx: Queryable) => Promise<T>,
  queryable: (client: pg.PoolClient) => Queryable,
): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  // The pool listens to idle connections only: one that breaks between two of our statements would end the process.
  const onBroken = (error: Error): void => {
    broken = error;
  };
  client.on("error", onBroken);
  try {
    await client.query(BEGIN);
    const result = await work(queryable(client));
    await client.query("commit");
    return result;
  } catch (error) {
    await client.query("rollback").catch(onBroken);
    throw error;
  } finally {
    client.off("error", onBroken);
    client.release(broken);
  }
}

function runner(client: pg.Pool | pg.PoolClient, schema: string, prepare: boolean): Queryable {
  return {
    schema,
    async query<Row extends object>({ text, values, name }: Statement): Promise<Row[]> {
      const config: pg.QueryConfig = { text };
      if (values !== undefined) config.values = values as unknown[];
      if (prepare && name !== undefined) config.name = name;
      return (await client.query<Row>(config)).rows;
    },
  };
}

/** A connection of its own, opened again whenever it is lost, until it is closed. */
async function listen(
  at: pg.ClientConfig,
  channel: string,
  onNotify: (topic: string) => void,
  onGap: () => void,
): Promise<Subscription> {
  let closed = false;
  let client: pg.Client | undefined;
  let timer: NodeJS.Timeout | undefined;

  const connect = async (): Promise<void> => {
    const next = new pg.Client(at);
    next.on("notification", (message) => onNotify(message.payload ?? ""));
    next.on("error", () => {});
    next.once("end", () => {
      if (client === next) client = undefined;
      reconnectLater();
    });
    await next.connect();
    if (closed) return next.end();
    await next.query(`listen ${channel}`);
    client = next;
  };
  const reconnectLater = (): void => {
    if (closed || timer !== undefined) return;
    timer = setTimeout(() => {
      timer = undefined;
      if (closed) return;
      connect().then(onGap, reconnectLater);
    }, RECONNECT_MS);
    timer.unref();
  };

  await connect();
  return {
    async close() {
      closed = true;
      clearTimeout(timer);
      await client?.end();
    },
  };
}
