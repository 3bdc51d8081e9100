import { randomUUID } from "node:crypto";
import { Annotation, Command, END, interrupt, START, StateGraph } from "@langchain/langgraph";
import {
  type BaseCheckpointSaver,
  type CheckpointTuple,
  emptyCheckpoint,
  uuid6,
} from "@langchain/langgraph-checkpoint";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import pg from "pg";
import { afterAll, beforeEach, expect, inject, it } from "vitest";
import { z } from "zod";
import { CountersignSaver } from "../../checkpointers/index.ts";
import { postgres } from "../../src/backends/postgres/index.ts";
import { postgresDatabase } from "../../src/database/postgres.ts";
import { insertThread } from "../../src/database/threads.ts";
import { Drive } from "../../src/drive.ts";
import { type AnyGraph, commit, countersign, defineCommitment, defineGraph } from "../../src/index.ts";
import { DRIVE_KEY } from "../../src/langgraph.ts";
import { testDatabase } from "../support/database.ts";
import { gate } from "../support/gate.ts";
import { createDatabase, dropDatabase } from "../support/postgres.ts";
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

const stock = (): PostgresSaver => new PostgresSaver(pool, undefined, { schema: "countersign" });
const thread = (threadId: string) => ({ configurable: { thread_id: threadId }, durability: "sync" as const });

async function listed(saver: BaseCheckpointSaver, threadId: string): Promise<CheckpointTuple[]> {
  const tuples: CheckpointTuple[] = [];
  for await (const tuple of saver.list({ configurable: { thread_id: threadId } })) tuples.push(tuple);
  return tuples;
}

it("is an ordinary checkpointer on its own: a graph interrupts, and resumes in another process", async () => {
  const saver = new CountersignSaver(pool);
  await saver.setup();
  const asked = await interview(saver).invoke({ question: "how many?" }, thread("alone"));
  const resumed = await interview(new CountersignSaver(pool)).invoke(new Command({ resume: "three" }), thread("alone"));
  expect(asked).toMatchObject({ __interrupt__: [{ value: "how many?" }] });
  expect(resumed).toEqual({ question: "how many?", answer: "three", sent: true });
});

it("opens from a connection string, too", async () => {
  const saver = CountersignSaver.fromConnString(url);
  await saver.setup();
  await interview(saver).invoke({ question: "how many?" }, thread("from-url"));
  expect(await saver.getTuple(thread("from-url"))).toBeInstanceOf(Object);
  await saver.end();
});

it("writes what the stock PostgresSaver reads, to the last write, and goes on with", async () => {
  const ours = new CountersignSaver(pool);
  await interview(ours).invoke({ question: "how many?" }, thread("ours-first"));
  expect(await stock().getTuple(thread("ours-first"))).toEqual(await ours.getTuple(thread("ours-first")));
  expect(await listed(stock(), "ours-first")).toEqual(await listed(ours, "ours-first"));
  const resumed = await interview(stock()).invoke(new Command({ resume: "three" }), thread("ours-first"));
  expect(resumed).toEqual({ question: "how many?", answer: "three", sent: true });
});

it("goes on with a thread that the stock PostgresSaver began", async () => {
  await interview(stock()).invoke({ question: "how many?" }, thread("stock-first"));
  const ours = new CountersignSaver(pool);
  expect(await listed(ours, "stock-first")).toEqual(await listed(stock(), "stock-first"));
  const resumed = await interview(ours).invoke(new Command({ resume: "three" }), thread("stock-first"));
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
    expect(rows.map((row) => row.version)).toEqual([1, 2, 3]);
    await interview(new CountersignSaver(fresh)).invoke({ question: "how many?" }, thread("t"));
    expect(await listed(new CountersignSaver(fresh), "t")).toHaveLength(2);
  });
});

it("takes over the tables of a stock PostgresSaver, and finds the head of each thread", async () => {
  await inEmptyDatabase(async (fresh) => {
    const before = new PostgresSaver(fresh, undefined, { schema: "countersign" });
    await before.setup();
    // A deleted thread leaves room in the table, so that newer rows lie before older ones.
    await interview(before).invoke({ question: "forget me" }, thread("deleted"));
    await interview(before).invoke({ question: "how many?" }, thread("t"));
    await before.deleteThread("deleted");
    await fresh.query("vacuum countersign.checkpoints");
    await interview(before).invoke(new Command({ resume: "three" }), thread("t"));
    const saver = new CountersignSaver(fresh);
    await saver.setup();
    expect((await interview(saver).getState(thread("t"))).values).toMatchObject({ answer: "three", sent: true });
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
  await interview(saver).invoke({ question: "how many?" }, thread("elsewhere"));
  expect(await listed(saver, "elsewhere")).toHaveLength(2);
  expect(await listed(new CountersignSaver(pool), "elsewhere")).toEqual([]);
});

/** The calls of one run share their `control`, as LangGraph passes it. */
function run(threadId: string, checkpointId = uuid6(0)) {
  return { configurable: { thread_id: threadId, checkpoint_ns: "", checkpoint_id: checkpointId }, control: {} };
}

const METADATA = { source: "loop", step: 1, parents: {} } as const;
const writesOf = async (threadId: string): Promise<string[]> => {
  const { rows } = await pool.query("select channel from countersign.checkpoint_writes where thread_id = $1", [
    threadId,
  ]);
  return rows.map((row) => row.channel).sort();
};

it("sends what one tick writes as one statement, over all threads", async () => {
  const saver = new CountersignSaver(pool);
  const [one, other] = [run("tick-1"), run("tick-2")];
  const next = { ...emptyCheckpoint(), channel_values: { total: 3 }, channel_versions: { total: 2 } };
  await Promise.all([
    saver.putWrites(one, [["left", 1]], "task-1"),
    saver.putWrites(one, [["right", 2]], "task-2"),
    saver.put(one, next, METADATA, { total: 2 }),
    saver.putWrites(other, [["left", 4]], "task-1"),
  ]);
  expect(statements).toHaveLength(1);
  expect(await writesOf("tick-1")).toEqual(["left", "right"]);
  expect(await writesOf("tick-2")).toEqual(["left"]);
  expect((await saver.getTuple(thread("tick-1")))?.checkpoint.channel_values).toEqual({ total: 3 });
});

it("costs a graph one statement a step: the step's writes commit with the checkpoint that they lead to", async () => {
  const line = new StateGraph(State)
    .addNode("ask", () => ({ question: "how many?" }))
    .addNode("answer", () => ({ answer: "three" }))
    .addNode("send", () => ({ sent: true }))
    .addEdge(START, "ask")
    .addEdge("ask", "answer")
    .addEdge("answer", "send")
    .addEdge("send", END)
    .compile({ checkpointer: new CountersignSaver(pool) });
  await line.invoke({}, thread("steps"));
  // The head is looked for once; then the input, `__start__` and three nodes each leave a checkpoint.
  expect(statements).toHaveLength(1 + 5);
  const { rows } = await pool.query(
    `select w.xmin = c.xmin as together from countersign.checkpoints c
     join countersign.checkpoint_writes w on w.thread_id = c.thread_id and w.checkpoint_id = c.parent_checkpoint_id
     where c.thread_id = 'steps'`,
  );
  expect(new Set(rows.map((row) => row.together))).toEqual(new Set([true]));
});

const noop: AnyGraph = defineGraph({
  name: "noop",
  version: 1,
  durability: "durable",
  graph: new StateGraph(State)
    .addNode("noop", () => ({}))
    .addEdge(START, "noop")
    .addEdge("noop", END),
});

/** The config of a drive that holds a new thread's lease. */
async function leased(threadId: string) {
  const row = await insertThread(postgresDatabase(pool, { schema: "countersign" }), {
    threadId,
    tenant: "default",
    graph: "noop",
    graphVersion: 1,
    durability: "durable",
    correlationId: threadId,
    traceId: null,
    proposedBy: "test",
    input: ["json", Buffer.from("{}")],
    context: null,
    recursionLimit: null,
    onReject: null,
    onFailure: null,
    lossWindow: null,
    lease: { owner: "test", leaseMs: 30_000 },
  });
  const leaseToken = row?.lease_token ?? 0;
  const drive = new Drive({
    graph: noop,
    threadId,
    leaseToken,
    proposedBy: "test",
    traceId: null,
    outcomes: [],
    ownerOf: () => "postgres",
  });
  return { configurable: { ...run(threadId).configurable, [DRIVE_KEY]: drive } };
}

it("refuses only the call whose lease was taken over; the others of the batch are written", async () => {
  const saver = new CountersignSaver(pool);
  const [stale, held] = [await leased("stale"), await leased("held")];
  await pool.query("update countersign.threads set lease_token = lease_token + 1 where thread_id = 'stale'");
  statements.length = 0;
  const [refused, written, plain] = await Promise.allSettled([
    saver.putWrites(stale, [["left", 1]], "task-1"),
    saver.putWrites(held, [["left", 1]], "task-1"),
    saver.putWrites(run("of-nobody"), [["left", 1]], "task-1"),
  ]);
  expect(statements).toHaveLength(1);
  expect(refused).toMatchObject({ status: "rejected", reason: { code: "LEASE_LOST" } });
  expect([written.status, plain.status]).toEqual(["fulfilled", "fulfilled"]);
  expect(await writesOf("stale")).toEqual([]);
  expect(await writesOf("held")).toEqual(["left"]);
  expect(await writesOf("of-nobody")).toEqual(["left"]);
});

it("refuses a lease that is not running any more, although its token is the newest", async () => {
  const saver = new CountersignSaver(pool);
  const config = await leased("cancelled");
  await pool.query("update countersign.threads set status = 'cancelled' where thread_id = 'cancelled'");
  await expect(saver.put(config, emptyCheckpoint(), METADATA, {})).rejects.toMatchObject({ code: "LEASE_LOST" });
  expect(await listed(saver, "cancelled")).toEqual([]);
});

it("writes nothing to a thread of Countersign's for a graph that is run past it", async () => {
  await leased("driven");
  const graph = interview(new CountersignSaver(pool));
  await expect(graph.invoke({ question: "how many?" }, thread("driven"))).rejects.toMatchObject({ code: "BOUNDARY" });
  expect(await listed(stock(), "driven")).toEqual([]);
  expect(await writesOf("driven")).toEqual([]);
});

it("lets a call whose data the database refuses fail alone, not the other threads of its batch", async () => {
  const held = gate();
  const pay = defineCommitment({
    name: "payment.send",
    version: 1,
    sideEffectClass: "external_message",
    approvalClass: "A1",
    reversibilityClass: "R2",
    sensitivityClass: "S1",
    input: z.object({ invoice: z.string(), amount: z.number() }),
    output: z.object({}),
    idempotencyKey: ({ invoice }) => invoice,
    execute: async () => ({}),
  });
  const Bill = Annotation.Root({ invoice: Annotation<string>, amount: Annotation<number> });
  const graph = defineGraph({
    name: "payer",
    version: 1,
    durability: "durable",
    commitments: [pay],
    graph: new StateGraph(Bill)
      .addNode("pay", async (state) => {
        if (state.amount > 1) await held.pass();
        await commit(pay, state);
        return {};
      })
      .addEdge(START, "pay")
      .addEdge("pay", END),
  });
  await using cs = await countersign({ database: pool, graphs: [graph], backend: postgres() });
  await cs.start(graph, { invoice: "i-1", amount: 1 }, { threadId: "first" });
  const runs = [
    cs.start(graph, { invoice: "i-1", amount: 2 }, { threadId: "clash" }),
    cs.start(graph, { invoice: "i-2", amount: 3 }, { threadId: "fine" }),
  ];
  await held.reached(2);
  statements.length = 0;
  held.open();
  const [clash, fine] = await Promise.all(runs);
  const [batch] = statements;
  expect(String(batch?.values[0])).toContain("clash");
  expect(String(batch?.values[0])).toContain("fine");
  expect(clash).toMatchObject({ status: "failed", error: { code: "IDEMPOTENCY_KEY_REUSED" } });
  expect(fine).toMatchObject({ status: "waiting", pending: [{ idempotencyKey: "i-2" }] });
  expect(await cs.intents("clash")).toEqual([]);
  expect(await writesOf("clash")).not.toContain("__interrupt__");
});
