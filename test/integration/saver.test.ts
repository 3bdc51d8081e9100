import { randomUUID } from "node:crypto";
import { Annotation, Command, END, interrupt, START, StateGraph } from "@langchain/langgraph";
import type { BaseCheckpointSaver, CheckpointTuple } from "@langchain/langgraph-checkpoint";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import pg from "pg";
import { afterAll, beforeEach, expect, inject, it } from "vitest";
import { CountersignSaver } from "../../checkpointers/index.ts";
import { MIGRATIONS } from "../../src/database/migrations/index.ts";
import { testDatabase } from "../support/database.ts";
import { createDatabase, dropDatabase } from "../support/postgres.ts";
import { onThread, StockSaver } from "../support/traps.ts";
import { watchedPool } from "../support/watched-pool.ts";

const { url } = await testDatabase();
const { pool, statements } = watchedPool(url);
afterAll(() => pool.end());
beforeEach(() => {
  statements.length = 0;
});

const State = Annotation.Root({ question: Annotation<string>, answer: Annotation<string>, sent: Annotation<boolean> });

/** Asks, then sends: one interrupt on the way. */
function interview(checkpointer: BaseCheckpointSaver) {
  return new StateGraph(State)
    .addNode("ask", (state) => ({ answer: interrupt(state.question) as string }))
    .addNode("send", () => ({ sent: true }))
    .addEdge(START, "ask")
    .addEdge("ask", "send")
    .addEdge("send", END)
    .compile({ checkpointer });
}

const stock = (): StockSaver => new StockSaver(pool);

async function listed(saver: BaseCheckpointSaver, threadId: string): Promise<CheckpointTuple[]> {
  const tuples: CheckpointTuple[] = [];
  for await (const tuple of saver.list(onThread(threadId))) tuples.push(tuple);
  return tuples;
}

it("is an ordinary checkpointer on its own: a graph interrupts, and resumes in another process", async () => {
  const saver = new CountersignSaver(pool);
  await saver.setup();
  const asked = await interview(saver).invoke({ question: "how many?" }, onThread("alone"));
  const resumed = await interview(new CountersignSaver(pool)).invoke(
    new Command({ resume: "three" }),
    onThread("alone"),
  );
  expect(asked).toMatchObject({ __interrupt__: [{ value: "how many?" }] });
  expect(resumed).toEqual({ question: "how many?", answer: "three", sent: true });
});

it.each(["sync", "async", "exit"] as const)("serves a graph in LangGraph's durability '%s'", async (durability) => {
  const graph = interview(new CountersignSaver(pool));
  const config = { ...onThread(`durability-${durability}`), durability };
  await graph.invoke({ question: "how many?" }, config);
  expect((await graph.getState(config)).tasks[0]?.interrupts).toMatchObject([{ value: "how many?" }]);
  await graph.invoke(new Command({ resume: "three" }), config);
  expect((await graph.getState(config)).values).toEqual({ question: "how many?", answer: "three", sent: true });
});

it("opens from a connection string, too", async () => {
  const saver = CountersignSaver.fromConnString(url);
  await saver.setup();
  await interview(saver).invoke({ question: "how many?" }, onThread("from-url"));
  expect(await saver.getTuple(onThread("from-url"))).toBeInstanceOf(Object);
  await saver.end();
});

it("writes what the stock PostgresSaver reads, to the last write, and goes on with", async () => {
  const ours = new CountersignSaver(pool);
  await interview(ours).invoke({ question: "how many?" }, onThread("ours-first"));
  expect(await stock().getTuple(onThread("ours-first"))).toEqual(await ours.getTuple(onThread("ours-first")));
  expect(await listed(stock(), "ours-first")).toEqual(await listed(ours, "ours-first"));
  const resumed = await interview(stock()).invoke(new Command({ resume: "three" }), onThread("ours-first"));
  expect(resumed).toEqual({ question: "how many?", answer: "three", sent: true });
});

it("goes on with a thread that the stock PostgresSaver began", async () => {
  await interview(stock()).invoke({ question: "how many?" }, onThread("stock-first"));
  const ours = new CountersignSaver(pool);
  expect(await listed(ours, "stock-first")).toEqual(await listed(stock(), "stock-first"));
  const resumed = await interview(ours).invoke(new Command({ resume: "three" }), onThread("stock-first"));
  expect(resumed).toEqual({ question: "how many?", answer: "three", sent: true });
  expect(await listed(stock(), "stock-first")).toEqual(await listed(ours, "stock-first"));
});

/** A database of its own, without any tables. */
async function inEmptyDatabase(work: (pool: pg.Pool) => Promise<void>): Promise<void> {
  const name = `countersign_test_${randomUUID().replaceAll("-", "")}`;
  const fresh = new pg.Pool({ connectionString: await createDatabase(inject("serverUrl"), name), max: 10 });
  fresh.on("error", () => {});
  try {
    await work(fresh);
  } finally {
    await fresh.end();
    await dropDatabase(inject("serverUrl"), name);
  }
}

it("sets itself up once, however many processes do it at the same time", async () => {
  await inEmptyDatabase(async (fresh) => {
    const savers = Array.from({ length: 10 }, () => new CountersignSaver(fresh));
    await Promise.all(savers.map((saver) => saver.setup()));
    const { rows } = await fresh.query("select version from countersign.migrations order by version");
    expect(rows.map((row) => row.version)).toEqual(MIGRATIONS.map(({ version }) => version));
    await interview(new CountersignSaver(fresh)).invoke({ question: "how many?" }, onThread("t"));
    expect(await listed(new CountersignSaver(fresh), "t")).toHaveLength(2);
  });
});

it("does not wait for anybody's reading when there is nothing left to set up", async () => {
  const reader = await pool.connect();
  const impatient = new pg.Pool({ connectionString: url, options: "-c lock_timeout=500" });
  impatient.on("error", () => {});
  try {
    // What a backup does for hours: everybody who wants to write would queue up behind who waits for it.
    await reader.query("begin; lock table countersign.checkpoints in access share mode");
    await expect(new CountersignSaver(impatient).setup()).resolves.toBeUndefined();
  } finally {
    await reader.query("rollback");
    reader.release();
    await impatient.end();
  }
});

it("takes over the tables of a stock PostgresSaver, and finds the head of each thread", async () => {
  await inEmptyDatabase(async (fresh) => {
    const before = new PostgresSaver(fresh, undefined, { schema: "countersign" });
    await before.setup();
    // A deleted thread leaves room in the table, so that newer rows lie before older ones.
    await interview(before).invoke({ question: "forget me" }, onThread("deleted"));
    await interview(before).invoke({ question: "how many?" }, onThread("t"));
    await before.deleteThread("deleted");
    await fresh.query("vacuum countersign.checkpoints");
    await interview(before).invoke(new Command({ resume: "three" }), onThread("t"));
    const saver = new CountersignSaver(fresh);
    await saver.setup();
    expect((await interview(saver).getState(onThread("t"))).values).toMatchObject({ answer: "three", sent: true });
    expect(await listed(saver, "t")).toEqual(await listed(before, "t"));
  });
});

it.each(["Countersign", "has space", 'x"; drop schema public; --', "1st", "", "a".repeat(52)])(
  "refuses the schema name %j, which is no plain identifier",
  (schema) => {
    expect(() => new CountersignSaver(pool, { schema })).toThrow(expect.objectContaining({ code: "OPTION_INVALID" }));
    expect(() => CountersignSaver.fromConnString(url, { schema })).toThrow(/schema name/);
    expect(statements).toEqual([]);
  },
);

it("keeps to the schema that it is given", async () => {
  const saver = new CountersignSaver(pool, { schema: "elsewhere" });
  await saver.setup();
  await interview(saver).invoke({ question: "how many?" }, onThread("elsewhere"));
  expect(await listed(saver, "elsewhere")).toHaveLength(2);
  expect(await listed(new CountersignSaver(pool), "elsewhere")).toEqual([]);
});

it("prepares its statements under names, unless it is told not to", async () => {
  await interview(new CountersignSaver(pool)).invoke({ question: "how many?" }, onThread("prepared"));
  expect(statements.map(({ name }) => name)).toContain("countersign.write.plain");
  statements.length = 0;
  await interview(new CountersignSaver(pool, { prepare: false })).invoke({ question: "why?" }, onThread("unprepared"));
  expect(statements.length).toBeGreaterThan(2);
  expect(statements.filter(({ name }) => name !== undefined)).toEqual([]);
});

it("gives values back as they were, whatever their bytes", async () => {
  const Values = Annotation.Root({
    text: Annotation<string>,
    bytes: Annotation<Uint8Array>,
    large: Annotation<string>,
  });
  const values = {
    text: "NUL \u0000, quote ' and \", umlaut ü, emoji 🦊, backslash \\x00",
    bytes: Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)),
    large: "0123456789".repeat(100_000),
  };
  const graph = new StateGraph(Values)
    .addNode("fill", () => values)
    .addEdge(START, "fill")
    .addEdge("fill", END)
    .compile({ checkpointer: new CountersignSaver(pool) });
  await graph.invoke({ text: "" }, onThread("bytes"));
  expect((await graph.getState(onThread("bytes"))).values).toEqual(values);
  const written = (await listed(stock(), "bytes")).flatMap((tuple) => tuple.pendingWrites ?? []);
  expect(written.map(([, channel, value]) => [channel, value])).toEqual(expect.arrayContaining(Object.entries(values)));
});
