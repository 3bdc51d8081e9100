/** One parameterised statement. With a `name` it is prepared once per connection. */
export interface Statement {
  readonly text: string;
  readonly values?: readonly unknown[];
  readonly name?: string;
}

/** What runs a statement: a pool, or the one connection of a transaction. */
export interface Queryable {
  /** The schema that holds our tables: validated, so that statements may name it. */
  readonly schema: string;
  query<Row extends object>(statement: Statement): Promise<Row[]>;
}

/** A database as the SDK needs it: Postgres behind a pool, or PGlite in this process. */
export interface Database extends Queryable {
  readonly kind: "postgres" | "pglite";
  /**
   * Runs `work` in one transaction: commits when it resolves, rolls back when it throws. `work` does
   * nothing but query, since it runs again when the database found two transactions in each other's way.
   */
  transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T>;
  /** Several statements in one text, without parameters: for migrations. */
  execute(tx: Queryable, text: string): Promise<void>;
  /**
   * Calls `onNotify` for each notification on the channel, and `onGap` whenever some may have been
   * missed (the connection was lost and is back).
   */
  listen(channel: string, onNotify: (topic: string) => void, onGap: () => void): Promise<Subscription>;
  /** What LangGraph's `PostgresSaver` takes for a pool. */
  readonly pool: PoolLike;
  /** Closes what this object opened itself; a pool that the caller passed stays open. */
  close(): Promise<void>;
}

export interface Subscription {
  close(): Promise<void>;
}

/** The part of `pg.Pool` that `PostgresSaver` uses. */
export interface PoolLike {
  query(text: string, values?: unknown[]): Promise<{ rows: unknown[] }>;
  connect(): Promise<{ query(text: string, values?: unknown[]): Promise<{ rows: unknown[] }>; release(): void }>;
  end(): Promise<void>;
}

/** Something that `countersign({ database })` can open: `pglite(…)` returns one. */
export interface DatabaseSource {
  open(schema: string): Promise<Database>;
}
