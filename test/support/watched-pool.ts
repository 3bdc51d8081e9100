import pg from "pg";

/** What a client sent to the database. */
export interface SentStatement {
  readonly text: string;
  readonly values: readonly unknown[];
  /** Of a prepared one. */
  readonly name: string | undefined;
}

/** An ordinary pool that also notes every statement which its connections send. */
export function watchedPool(url: string): { readonly pool: pg.Pool; readonly statements: SentStatement[] } {
  const statements: SentStatement[] = [];
  class WatchedClient extends pg.Client {
    // biome-ignore lint/suspicious/noExplicitAny: `query` has nine overloads; every call passes through as it came
    override query(...args: any[]): any {
      const [first, second] = args;
      const config = typeof first === "string" ? { text: first, values: second } : first;
      statements.push({
        text: String(config.text),
        values: Array.isArray(config.values) ? config.values : [],
        name: config.name,
      });
      // biome-ignore lint/suspicious/noExplicitAny: see above
      return (super.query as any)(...args);
    }
  }
  const pool = new pg.Pool({ connectionString: url, Client: WatchedClient, max: 10 });
  pool.on("error", () => {});
  return { pool, statements };
}
