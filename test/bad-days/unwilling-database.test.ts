import pg from "pg";
import { afterAll, expect, it, vi } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { type CountersignOptions, countersign } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { effect, graphOf, MIA, NEEDS_MANAGER } from "../support/effects.ts";
import { ownServer } from "../support/own-server.ts";
import { everything, onlyOne } from "../support/requests.ts";

const { url, pool } = await testDatabase();
const database = new URL(url).pathname.slice(1);

const open = (graphs: CountersignOptions["graphs"], options: Partial<CountersignOptions> = {}) =>
  countersign({ database: url, graphs, backend: postgres(), onError: () => {}, ...options });
const graph = graphOf(effect({ ...NEEDS_MANAGER, execute: async () => ({ ref: "sent" }) }));
const unavailable = (reason: string) => ({ code: "DATABASE_UNAVAILABLE", facts: { reason } });

/** For connections that are made from now on. */
const setting = (name: string, value: string | undefined) =>
  pool.query(`alter database ${database} ${value === undefined ? `reset ${name}` : `set ${name} = '${value}'`}`);

it("a read-only database lists what is pending, refuses every change in our words, and keeps all as it was", async () => {
  await using writable = await open([graph]);
  const { threadId, pending } = await writable.start(graph, { n: 1 });
  const { id, digest } = onlyOne(pending);
  const before = await everything(pool);
  await setting("default_transaction_read_only", "on");
  try {
    await using cs = await open([graph]);
    expect(onlyOne(await cs.pending({ threadId })).id).toBe(id);
    expect((await cs.state(threadId)).next).toEqual(["act"]);
    await expect(cs.approve(id, { by: MIA, digest })).rejects.toMatchObject(unavailable("25006"));
    await expect(cs.start(graph, { n: 2 })).rejects.toMatchObject(unavailable("25006"));
    await expect(cs.work({ until: "idle" })).rejects.toMatchObject(unavailable("25006"));
    expect(await everything(pool)).toEqual(before);
  } finally {
    await setting("default_transaction_read_only", undefined);
  }
  await writable.approve(id, { by: MIA, digest });
  await writable.work({ until: "idle" });
  expect((await writable.result(threadId)).status).toBe("completed");
});

it("an empty read-only database cannot be set up, and nothing is left in it", async () => {
  await pool.query(`create schema if not exists other`);
  await setting("default_transaction_read_only", "on");
  try {
    await expect(open([graph], { schema: "not_there_yet" })).rejects.toMatchObject(unavailable("25006"));
  } finally {
    await setting("default_transaction_read_only", undefined);
  }
  expect((await pool.query("select from pg_namespace where nspname = 'not_there_yet'")).rowCount).toBe(0);
});

it("a statement that the server gives up is undone whole, and can be asked again", async () => {
  await using patient = await open([graph]);
  const { threadId, pending } = await patient.start(graph, { n: 3 });
  const { id, digest } = onlyOne(pending);
  const before = await everything(pool);
  const holder = await pool.connect();
  await holder.query("begin");
  await holder.query("select from countersign.execution_intents where id = $1 for update", [id]);
  await setting("statement_timeout", "100ms");
  await using cs = await open([graph]);
  await setting("statement_timeout", undefined);
  await expect(cs.approve(id, { by: MIA, digest })).rejects.toMatchObject(unavailable("57014"));
  await holder.query("rollback");
  holder.release();
  expect(await everything(pool)).toEqual(before);

  await cs.approve(id, { by: MIA, digest });
  await cs.work({ until: "idle" });
  expect((await cs.result(threadId)).status).toBe("completed");
});

it("a server without a connection left refuses some calls, loses none of those that it took, and recovers", async () => {
  const server = await ownServer("max_connections=12", "superuser_reserved_connections=0");
  afterAll(() => server[Symbol.asyncDispose]());
  const small = { database: server.url };
  await using cs = await open([graph], small);
  const greedy: pg.Client[] = [];
  const takeAll = async (): Promise<void> => {
    for (;;) {
      const client = new pg.Client({ connectionString: server.url });
      client.on("error", () => {});
      await client.connect();
      greedy.push(client);
    }
  };
  await expect(takeAll()).rejects.toMatchObject({ code: "53300" });
  await expect(open([graph], small)).rejects.toMatchObject(unavailable("53300"));
  const ids = Array.from({ length: 30 }, (_, n) => `crowd-${n}`);
  const starts = await Promise.allSettled(ids.map((threadId) => cs.start(graph, { n: 1 }, { threadId })));
  const refused = starts.filter((start) => start.status === "rejected");
  expect(refused.length).toBeGreaterThan(0);
  for (const { reason } of refused) expect(reason).toMatchObject(unavailable("53300"));
  await Promise.all(greedy.map((client) => client.end()));

  for (const [n, start] of starts.entries()) {
    const threadId = ids[n] as string;
    if (start.status === "fulfilled") {
      // Taken: it waits for a person, or its drive was broken off and it is driven again.
      await vi.waitFor(async () => {
        await cs.work({ until: "idle" });
        expect(await cs.pending({ threadId })).toHaveLength(1);
      }, 30_000);
    } else {
      // Refused before it began, or begun and left for the next driver: never half of a thread.
      const known = (await cs.audit.list(threadId)).map(({ action }) => action);
      expect([[], ["thread.started"], ["thread.started", "intent.recorded"]]).toContainEqual(known);
    }
  }
  const { pending } = await cs.start(graph, { n: 2 });
  expect(pending).toHaveLength(1);
});
