import { DatabaseError, OptionError } from "../errors.ts";
import type { Database, Queryable } from "./client.ts";
import { MIGRATIONS } from "./migrations/index.ts";

/** The schema that the tables live in unless another one is named. */
export const DEFAULT_SCHEMA = "countersign";

/**
 * Returns a schema name that is safe to interpolate: the only identifier that ever is.
 * @throws OptionError
 */
export function assertSchemaName(schema: string): string {
  if (typeof schema === "string" && /^(?!pg_)[a-z_][a-z0-9_]{0,50}$/.test(schema)) return schema;
  throw new OptionError("The schema name is not a plain lower-case identifier", {
    remedy: "Use letters, digits and underscores, at most 51, not starting with a digit or with pg_.",
  });
}

/**
 * Brings the schema up to this code's version. Any number of processes may call it at once: one
 * migrates, under an advisory lock, the others wait and find nothing to do. Each migration commits
 * together with its version row.
 * @throws OptionError for a schema named by a word of SQL.
 * @throws DatabaseError `SCHEMA_TOO_NEW` when newer code has made a breaking change.
 */
export async function migrate(database: Database): Promise<void> {
  const { schema } = database;
  for (const migration of MIGRATIONS) {
    await database.transaction(async (tx) => {
      await lockMigrations(tx);
      const applied = await prepare(database, tx);
      assertNotNewer(applied, schema);
      if (applied.some((row) => row.version === migration.version)) return;
      await tx.query({
        text: `insert into ${schema}.migrations (version, name, breaking) values ($1, $2, $3)`,
        values: [migration.version, migration.name, migration.breaking],
      });
      await database.execute(tx, migration.sql(schema));
    });
  }
}

/** One lock per schema, held until the transaction ends. */
export async function lockMigrations(tx: Queryable): Promise<void> {
  await tx.query({
    text: "select pg_advisory_xact_lock(hashtextextended($1, 0))",
    values: [`${tx.schema}.migrations`],
  });
}

interface AppliedMigration {
  readonly version: number;
  readonly name: string;
  readonly breaking: boolean;
}

async function prepare(database: Database, tx: Queryable): Promise<AppliedMigration[]> {
  const { schema } = tx;
  // Looked up first: to create asks for rights that a process may lack where all is there already.
  const [found] = await tx.query<{ exists: boolean }>({
    text: "select to_regclass($1) is not null as exists",
    values: [`${schema}.migrations`],
  });
  if (found?.exists !== true) {
    await assertNoWordOfSql(tx);
    await database.execute(
      tx,
      `create schema if not exists ${schema};
       create table ${schema}.migrations (
         version integer primary key, name text not null, breaking boolean not null,
         applied_at timestamptz not null default now());`,
    );
  }
  return tx.query<AppliedMigration>({ text: `select version, name, breaking from ${schema}.migrations` });
}

/** Which words are reserved is the server's to say: each version has some more. */
async function assertNoWordOfSql(tx: Queryable): Promise<void> {
  const [named] = await tx.query<{ plain: boolean }>({
    text: "select quote_ident($1) = $1 as plain",
    values: [tx.schema],
  });
  if (named?.plain === true) return;
  throw new OptionError("The schema name is a word of SQL", {
    facts: { schema: tx.schema },
    remedy: `Choose another one, such as countersign_${tx.schema}; nothing was created.`,
  });
}

function assertNotNewer(applied: readonly AppliedMigration[], schema: string): void {
  const known = MIGRATIONS.at(-1)?.version ?? 0;
  const newer = applied.find((row) => row.version > known && row.breaking);
  if (newer === undefined) return;
  throw new DatabaseError("SCHEMA_TOO_NEW", "The schema was migrated by a newer version of countersign", {
    facts: { schema, migration: `${newer.version} ${newer.name}`, known },
    remedy: "Upgrade this process before it goes on; nothing was changed.",
  });
}
