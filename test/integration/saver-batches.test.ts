import type { RunnableConfig } from "@langchain/core/runnables";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { type BaseCheckpointSaver, emptyCheckpoint, uuid6 } from "@langchain/langgraph-checkpoint";
import { afterAll, beforeEach, expect, it } from "vitest";
import { z } from "zod";
import { CountersignSaver } from "../../checkpointers/index.ts";
import { insertThreads, type NewThread } from "../../src/database/new-threads.ts";
import { postgresDatabase } from "../../src/database/postgres.ts";
import { Drive } from "../../src/drive.ts";
import { commit, defineCommitment, defineGraph } from "../../src/index.ts";
import { DRIVE_KEY } from "../../src/langgraph.ts";
import { testDatabase } from "../support/database.ts";
import { gate } from "../support/gate.ts";
import { refuseInserts } from "../support/refuse-inserts.ts";
import { builder, channelsOf, durable, onThread, open, StockSaver } from "../support/traps.ts";
import { watchedPool } from "../support/watched-pool.ts";

/* How the saver's calls share statements, and how each of them fails alone. */

const { url } = await testDatabase();
const { pool, statements } = watchedPool(url);
afterAll(() => pool.end());
beforeEach(() => {
  statements.length = 0;
});

/** Three nodes, one after the other. */
const line = (checkpointer: BaseCheckpointSaver) =>
  builder()
    .addNode("first", () => ({ log: ["first"] }))
    .addNode("second", () => ({ log: ["second"] }))
    .addNode("third", () => ({ log: ["third"] }))
    .addEdge(START, "first")
    .addEdge("first", "second")
    .addEdge("second", "third")
    .addEdge("third", END)
    .compile({ checkpointer });

/** The calls of one run share their `control`, as LangGraph passes it. */
function run(threadId: string, checkpointId = uuid6(0)) {
  return { configurable: { thread_id: threadId, checkpoint_ns: "", checkpoint_id: checkpointId }, control: {} };
}

const METADATA = { source: "loop", step: 1, parents: {} } as const;

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
  expect(await channelsOf(pool, "tick-1")).toEqual(["left", "right"]);
  expect(await channelsOf(pool, "tick-2")).toEqual(["left"]);
  expect((await saver.getTuple(onThread("tick-1")))?.checkpoint.channel_values).toEqual({ total: 3 });
});

it("costs a graph one statement a step: the step's writes commit with the checkpoint that they lead to", async () => {
  await line(new CountersignSaver(pool)).invoke({}, onThread("steps"));
  // The head is looked for once; then the input, `__start__` and three nodes each leave a checkpoint.
  expect(statements).toHaveLength(1 + 5);
  const { rows } = await pool.query(
    `select c.metadata ->> 'step' as step, bool_and(w.xmin = c.xmin) as together from countersign.checkpoints c
     join countersign.checkpoint_writes w on w.thread_id = c.thread_id and w.checkpoint_id = c.parent_checkpoint_id
     where c.thread_id = 'steps' and (c.metadata ->> 'step')::int > 0 group by 1 order by 1`,
  );
  expect(rows).toEqual(["1", "2", "3"].map((step) => ({ step, together: true })));
});

it("sends more calls than one statement should hold as several, and loses none", async () => {
  const saver = new CountersignSaver(pool);
  const calls = Array.from({ length: 450 }, (_, n) => saver.putWrites(run(`many-${n}`), [["left", n]], "task-1"));
  await Promise.all(calls);
  expect(statements).toHaveLength(10);
  const { rows } = await pool.query(
    "select count(*)::int as written from countersign.checkpoint_writes where thread_id like 'many-%'",
  );
  expect(rows).toEqual([{ written: 450 }]);
});

it("keeps the calls of one thread in one statement, however many they are", async () => {
  const saver = new CountersignSaver(pool);
  const config = run("wide");
  await Promise.all(Array.from({ length: 450 }, (_, n) => saver.putWrites(config, [["left", n]], `task-${n}`)));
  expect(statements).toHaveLength(1);
  expect(await channelsOf(pool, "wide")).toHaveLength(450);
});

it("keeps the first writes of a task that ran twice, and the last of its special ones", async () => {
  const saver = new CountersignSaver(pool);
  const config = run("twice");
  await saver.put(config, { ...emptyCheckpoint(), id: config.configurable.checkpoint_id }, METADATA, {});
  const write = (value: number) => [
    saver.putWrites(config, [["left", value]], "ordinary"),
    saver.putWrites(config, [["__interrupt__", value]], "special"),
  ];
  const written = async () => (await saver.getTuple(config))?.pendingWrites;
  await Promise.all([...write(1), ...write(2)]);
  expect(await written()).toEqual([
    ["ordinary", "left", 1],
    ["special", "__interrupt__", 2],
  ]);
  await Promise.all(write(3));
  expect(await written()).toEqual([
    ["ordinary", "left", 1],
    ["special", "__interrupt__", 3],
  ]);
});

it("writes nothing of a task whose own checkpoint was refused, until another run writes it", async () => {
  const saver = new CountersignSaver(pool);
  const config = run("orphan");
  const checkpoint = { ...emptyCheckpoint(), id: config.configurable.checkpoint_id };
  const put = (control: object) =>
    saver.put({ ...onThread("orphan"), control } as RunnableConfig, checkpoint, METADATA, {});
  const refusal = await refuseInserts(pool, { table: "checkpoints", when: "new.thread_id = 'orphan'" });
  await expect(put(config.control)).rejects.toThrow("the test refuses this row");
  await refusal.end();
  await expect(saver.putWrites(config, [["left", 1]], "task-1")).rejects.toThrow("the test refuses this row");
  expect(await channelsOf(pool, "orphan")).toEqual([]);
  const retried = { ...config, control: {} };
  await put(retried.control);
  await saver.putWrites(retried, [["left", 1]], "task-1");
  expect(await channelsOf(pool, "orphan")).toEqual(["left"]);
});

it("keeps the writes of the lease that stands, whatever a stale one asks for in the same statement (G7)", async () => {
  const saver = new CountersignSaver(pool);
  const valid = await leased("two-leases");
  const late = await leased("two-leases", { staleBy: 1 });
  const stale = { configurable: { ...valid.configurable, [DRIVE_KEY]: late.configurable[DRIVE_KEY] } };
  statements.length = 0;
  const refused = saver.putWrites(stale, [["left", "stale"]], "task-1");
  const written = saver.putWrites(valid, [["left", "valid"]], "task-1");
  await expect(refused).rejects.toMatchObject({ code: "LEASE_LOST" });
  await written;
  expect(statements).toHaveLength(1);
  expect(await channelsOf(pool, "two-leases")).toEqual(["left"]);
});

const noop = durable("noop", builder());

/** The config of a drive that holds a new thread's lease. */
async function leased(threadId: string, { staleBy = 0 } = {}) {
  const thread: NewThread = {
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
  };
  const [row] = await insertThreads(postgresDatabase(pool, { schema: "countersign" }), [thread]);
  const leaseToken = (row?.lease_token ?? 1) - staleBy;
  const drive = new Drive({
    graph: noop,
    threadId,
    leaseToken,
    proposedBy: "test",
    traceId: null,
    outcomes: [],
    maxPayloadBytes: 1_000_000,
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
  expect(await channelsOf(pool, "stale")).toEqual([]);
  expect(await channelsOf(pool, "held")).toEqual(["left"]);
  expect(await channelsOf(pool, "of-nobody")).toEqual(["left"]);
});

it("refuses a lease that is not running any more, although its token is the newest", async () => {
  const saver = new CountersignSaver(pool);
  const config = await leased("cancelled");
  await pool.query("update countersign.threads set status = 'cancelled' where thread_id = 'cancelled'");
  await expect(saver.put(config, emptyCheckpoint(), METADATA, {})).rejects.toMatchObject({ code: "LEASE_LOST" });
  expect(await saver.getTuple(onThread("cancelled"))).toBeUndefined();
});

it("writes nothing to a thread of Countersign's for a graph that is run past it", async () => {
  await leased("driven");
  const graph = line(new CountersignSaver(pool));
  await expect(graph.invoke({}, onThread("driven"))).rejects.toMatchObject({ code: "BOUNDARY" });
  expect(await new StockSaver(pool).getTuple(onThread("driven"))).toBeUndefined();
  expect(await channelsOf(pool, "driven")).toEqual([]);
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
  await using cs = await open(pool, graph);
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
  expect(await channelsOf(pool, "clash")).not.toContain("__interrupt__");
});
