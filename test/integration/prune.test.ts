import { expect, it } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { countersign } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { clockOf, effect, graphOf, MIA, NEEDS_MANAGER } from "../support/effects.ts";

const { pool } = await testDatabase();
const { later } = clockOf(pool);
const LATER_MS = 3_600_000;

const send = effect({ execute: async () => ({ ref: "sent" }) });
const gated = effect({ ...NEEDS_MANAGER, execute: async () => ({ ref: "sent" }) });
const blind = effect({
  semantics: "at-most-once",
  execute: async () => {
    throw new Error("no answer");
  },
});
const graphs = { send: graphOf(send), gated: graphOf(gated), blind: graphOf(blind) };
const cs = await countersign({ database: pool, graphs: Object.values(graphs), backend: postgres() });

const TABLES = [
  "threads",
  "execution_intents",
  "decisions",
  "events",
  "checkpoints",
  "checkpoint_blobs",
  "checkpoint_writes",
];
/** How many rows of a thread there are, in all tables but the audit trail. */
async function rowsOf(threadId: string): Promise<number> {
  let count = 0;
  for (const table of TABLES) {
    const where =
      table === "decisions"
        ? "intent_id in (select id from countersign.execution_intents where thread_id = $1)"
        : "thread_id = $1";
    const { rows } = await pool.query(`select count(*)::int as n from countersign.${table} where ${where}`, [threadId]);
    count += rows[0].n;
  }
  return count;
}

/** A thread that has ended, an hour ago by the clock of the database. */
async function ended(): Promise<string> {
  const { threadId, pending } = await cs.start(graphs.gated, { n: 1 } as never);
  for (const { id, digest } of pending) await cs.approve(id, { by: MIA, digest });
  await cs.sendEvent(threadId, { name: "never-asked-for", eventId: "e-1", payload: {} });
  await cs.work({ until: "idle" });
  expect((await cs.result(threadId)).status).toBe("completed");
  await later(LATER_MS);
  return threadId;
}
const now = async (): Promise<Date> => (await pool.query("select countersign.clock() as now")).rows[0].now;

it("takes an ended thread away with everything of it, and keeps its audit trail whole", async () => {
  const threadId = await ended();
  const before = (await cs.audit.list(threadId)).length;
  expect(await rowsOf(threadId)).toBeGreaterThan(5);

  expect(await cs.prune({ endedBefore: await now() })).toEqual({ threads: 1, intents: 1 });

  expect(await rowsOf(threadId)).toBe(0);
  const audit = await cs.audit.list(threadId);
  expect(audit).toHaveLength(before + 1);
  expect(audit.at(-1)).toMatchObject({ action: "thread.pruned", outcome: "completed" });
  expect(await cs.audit.verify({ threadId })).toEqual([]);
});

it("takes the audit trail along only when it is told to", async () => {
  const threadId = await ended();
  await cs.prune({ endedBefore: await now(), keepAudit: false });
  expect(await cs.audit.list(threadId)).toEqual([]);
  expect(await cs.audit.verify()).toEqual([]);
});

it("leaves what ended later, what waits, and what is owed", async () => {
  const early = await now();
  const young = await ended();
  const waiting = (await cs.start(graphs.gated, { n: 2 } as never)).threadId;
  const unknown = (await cs.start(graphs.blind, { n: 3 } as never)).threadId;
  await cs.work({ until: "idle" });
  await cs.cancel(waiting, { by: MIA });
  await later(LATER_MS);
  // The graph was cancelled; whether the effect was done is still to be found out.
  await cs.cancel(unknown, { by: MIA });
  await later(LATER_MS);

  expect(await cs.prune({ endedBefore: early })).toEqual({ threads: 0, intents: 0 });
  expect(await cs.prune({ endedBefore: await now() })).toEqual({ threads: 2, intents: 2 });
  expect([await rowsOf(young), await rowsOf(waiting)]).toEqual([0, 0]);
  expect((await cs.intents(unknown)).map((intent) => intent.status)).toEqual(["unknown"]);
});

it("prunes thousands in batches, without touching another program's threads in the same tables", async () => {
  await pool.query(
    "insert into countersign.checkpoints (thread_id, checkpoint_id, checkpoint, metadata) values ('stranger', '1', '{}', '{}')",
  );
  await pool.query(
    `insert into countersign.threads (thread_id, graph, graph_version, durability, status, correlation_id, proposed_by,
       input_type, input, ready_at, created_at, updated_at, ended_at)
     select 'old-' || n, 'g', 1, 'durable', 'completed', 'c', 'p', 'json', 'null', now(), now(), now(), '2020-01-01'
     from generate_series(1, 1001) n`,
  );
  expect(await cs.prune({ endedBefore: new Date("2021-01-01") })).toEqual({ threads: 1001, intents: 0 });
  expect((await pool.query("select from countersign.checkpoints where thread_id = 'stranger'")).rowCount).toBe(1);
});

it.each(["execution_intents", "decisions", "audit_log"])("nobody deletes from %s by other ways", async (table) => {
  const { threadId, pending } = await cs.start(graphs.gated, { n: 1 } as never);
  for (const { id, digest } of pending) await cs.approve(id, { by: MIA, digest });
  await expect(pool.query(`delete from countersign.${table}`)).rejects.toMatchObject({ code: "CS001" });
  await expect(pool.query(`truncate countersign.${table} cascade`)).rejects.toMatchObject({ code: "CS001" });
  expect((await cs.audit.list(threadId)).length).toBeGreaterThan(1);
});

it.each([
  undefined,
  {},
  { endedBefore: "2020-01-01" },
  { endedBefore: new Date(Number.NaN) },
  { endedBefore: new Date(), keepAudit: "yes" },
])("refuses %j", async (options) => {
  await expect(cs.prune(options as never)).rejects.toMatchObject({ code: "OPTION_INVALID" });
});
