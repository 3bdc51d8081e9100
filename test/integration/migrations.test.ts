import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterEach, describe, expect, inject, it } from "vitest";
import { CountersignSaver } from "../../checkpointers/index.ts";
import { postgres } from "../../src/backends/postgres/index.ts";
import { MIGRATIONS } from "../../src/database/migrations/index.ts";
import { type Countersign, type CountersignOptions, countersign } from "../../src/index.ts";
import { createDatabase, dropDatabase } from "../support/postgres.ts";
import { graphOf, letter, onlyOne } from "../support/requests.ts";

const graph = graphOf(letter("letter.one"));
const input = { letter: { to: "a@example.org", text: "hello" } } as never;
const mia = { id: "mia", roles: ["manager"] };

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A database without any of our tables. */
async function freshDatabase(): Promise<{ readonly url: string; readonly pool: pg.Pool }> {
  const serverUrl = inject("serverUrl");
  const name = `countersign_fresh_${randomUUID().replaceAll("-", "")}`;
  const url = await createDatabase(serverUrl, name);
  const pool = new pg.Pool({ connectionString: url, max: 4 });
  pool.on("error", () => {});
  cleanups.push(async () => {
    await pool.end();
    await dropDatabase(serverUrl, name);
  });
  return { url, pool };
}

async function open(database: string | pg.Pool, options: Partial<CountersignOptions> = {}): Promise<Countersign> {
  const cs = await countersign({ database, graphs: [graph], backend: postgres(), ...options });
  cleanups.push(() => cs.close());
  return cs;
}

/** One letter from proposal to success: the tables, triggers and notifications are all there. */
async function liveOn(cs: Countersign): Promise<void> {
  const { pending, threadId } = await cs.start(graph, input);
  const { id, digest } = onlyOne(pending);
  await cs.approve(id, { by: mia, digest });
  await cs.work({ until: "idle" });
  expect((await cs.result(threadId)).status).toBe("completed");
  expect(await cs.audit.verify({ threadId })).toEqual([]);
}

/** Everything that a migration could make in a schema, and when it was made. */
async function shapeOf(pool: pg.Pool, schema = "countersign"): Promise<unknown> {
  const { rows } = await pool.query(
    `select 'column' as what, table_name || '.' || column_name || ' ' || data_type || coalesce(column_default, '') as name
       from information_schema.columns where table_schema = $1
     union all select 'index', indexdef from pg_indexes where schemaname = $1
     union all select 'function', p.oid::text || p.proname from pg_proc p where p.pronamespace = $1::regnamespace
     union all select 'trigger', t.oid::text || t.tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid
       where c.relnamespace = $1::regnamespace
     order by 1, 2`,
    [schema],
  );
  const applied = await pool.query(`select * from ${schema}.migrations order by version`);
  return { shape: rows, applied: applied.rows };
}

const schemasOf = async (pool: pg.Pool): Promise<string[]> => {
  const { rows } = await pool.query<{ nspname: string }>(
    "select nspname from pg_namespace where nspname !~ '^(pg_|information_schema)' order by 1",
  );
  return rows.map(({ nspname }) => nspname);
};

describe("migrations", () => {
  it("are applied once when ten processes start at once on an empty database, and all of them go on", async () => {
    const { url, pool } = await freshDatabase();
    const all = await Promise.all(Array.from({ length: 10 }, () => open(url)));
    const { rows } = await pool.query("select version, name from countersign.migrations order by version");
    expect(rows).toEqual(MIGRATIONS.map(({ version, name }) => ({ version, name })));
    await Promise.all(all.map((cs) => liveOn(cs)));
  });

  it("change nothing when they are applied already", async () => {
    const { url, pool } = await freshDatabase();
    await open(url);
    const before = await shapeOf(pool);
    await open(url);
    await open(pool);
    expect(await shapeOf(pool)).toEqual(before);
  });

  it("go on where a process died between two of them", async () => {
    const { url, pool } = await freshDatabase();
    const [first] = MIGRATIONS;
    await pool.query(`create schema countersign; create table countersign.migrations (
      version integer primary key, name text not null, breaking boolean not null, applied_at timestamptz not null default now());
      insert into countersign.migrations (version, name, breaking) values (1, '${first?.name}', true);
      ${first?.sql("countersign")}`);
    await liveOn(await open(url));
  });

  it("leave nothing behind when one fails, and can be tried again", async () => {
    const { url, pool } = await freshDatabase();
    await pool.query("create schema countersign; create table countersign.decisions (in_the_way integer)");
    await expect(open(url)).rejects.toMatchObject({ code: "42P07" });
    const { rows } = await pool.query("select tablename from pg_tables where schemaname = 'countersign'");
    expect(rows.map(({ tablename }) => tablename)).toEqual(["decisions"]);
    await pool.query("drop table countersign.decisions");
    await liveOn(await open(url));
  });

  it("are numbered from 1 without gaps, and each has a name of its own", () => {
    expect(MIGRATIONS.map(({ version }) => version)).toEqual(MIGRATIONS.map((_, index) => index + 1));
    expect(new Set(MIGRATIONS.map(({ name }) => name)).size).toBe(MIGRATIONS.length);
  });
});

describe("a schema that newer code has migrated", () => {
  const newer = (pool: pg.Pool, breaking: boolean) =>
    pool.query("insert into countersign.migrations (version, name, breaking) values (999, 'from-the-future', $1)", [
      breaking,
    ]);

  it("is refused when the change is breaking, before anything is touched", async () => {
    const { url, pool } = await freshDatabase();
    await open(url);
    await newer(pool, true);
    const before = await shapeOf(pool);
    await expect(open(url)).rejects.toMatchObject({
      code: "SCHEMA_TOO_NEW",
      facts: { schema: "countersign", migration: "999 from-the-future", known: MIGRATIONS.length },
    });
    expect(await shapeOf(pool)).toEqual(before);
  });

  it("is used when the change is not breaking", async () => {
    const { url, pool } = await freshDatabase();
    await open(url);
    await newer(pool, false);
    await liveOn(await open(url));
  });
});

describe("a start on a migrated schema", () => {
  it("waits for nobody who reads or writes there: it takes no lock that others would queue behind", async () => {
    const { url, pool } = await freshDatabase();
    await open(url);
    const busy = await pool.connect();
    await busy.query(`begin;
      lock table countersign.checkpoints, countersign.execution_intents, countersign.threads in row exclusive mode`);
    try {
      await open(`${url}?options=${encodeURIComponent("-c lock_timeout=2000")}`);
    } finally {
      await busy.query("rollback");
      busy.release();
    }
  });
});

describe("a schema of the caller's own", () => {
  it("holds everything, and nothing is put anywhere else", async () => {
    const { url, pool } = await freshDatabase();
    await liveOn(await open(url, { schema: "agents_1" }));
    expect(await schemasOf(pool)).toEqual(["agents_1", "public"]);
    const { rows } = await pool.query("select from pg_tables where schemaname = 'public'");
    expect(rows).toEqual([]);
  });

  it("is a world of its own beside another in the same database", async () => {
    const { url } = await freshDatabase();
    const [one, other] = [await open(url, { schema: "one" }), await open(url, { schema: "other" })];
    const { threadId } = await one.start(graph, input, { threadId: "t-1" });
    expect(await other.pending()).toEqual([]);
    expect(await one.pending()).toHaveLength(1);
    expect((await other.start(graph, input, { threadId })).status).toBe("waiting");
    await liveOn(other);
  });

  it.each([
    "",
    "Agents",
    "two words",
    "1st",
    "a-b",
    'a"b',
    "a;drop schema public",
    "ä",
    "a.b",
    "pg_mine",
    "x".repeat(52),
  ])("is refused under the name %o, before anything is opened", async (schema) => {
    const { url, pool } = await freshDatabase();
    await expect(open(url, { schema })).rejects.toMatchObject({ code: "OPTION_INVALID" });
    expect(await schemasOf(pool)).toEqual(["public"]);
  });
});

describe("a start that fails", () => {
  it("leaves no connection open", async () => {
    const { url, pool } = await freshDatabase();
    await expect(open(url, { graphs: [graph, graph] })).rejects.toMatchObject({ code: "DEFINITION_INVALID" });
    const { rows } = await pool.query(
      "select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'",
    );
    expect(rows).toEqual([]);
  });
});

it("asks for no right to create where everything is there already", async () => {
  const { url, pool } = await freshDatabase();
  await new CountersignSaver(pool).setup();
  const role = `limited_${process.pid}`;
  await pool.query(`create role ${role} login password 'limited'`);
  await pool.query(`grant usage on schema countersign to ${role}`);
  await pool.query(`grant select, insert, update, delete on all tables in schema countersign to ${role}`);
  const limited = new URL(url);
  limited.username = role;
  limited.password = "limited";
  const own = new pg.Pool({ connectionString: limited.toString() });

  try {
    await expect(new CountersignSaver(own).setup()).resolves.toBeUndefined();
  } finally {
    await own.end();
    await pool.query(`drop owned by ${role}`);
    await pool.query(`drop role ${role}`);
  }
});
