import { Annotation, END, Send, START, StateGraph } from "@langchain/langgraph";
import { afterEach, describe, expect, it, vi } from "vitest";
import { CountersignSaver } from "../../checkpointers/index.ts";
import type { Drive } from "../../src/drive.ts";
import { type AnyGraph, commit, defineGraph } from "../../src/index.ts";
import { DRIVE_KEY } from "../../src/langgraph.ts";
import { moveClock } from "../../src/testing/clock.ts";
import { testDatabase } from "../support/database.ts";
import { gate } from "../support/gate.ts";
import { refuseInserts } from "../support/refuse-inserts.ts";
import { approveAll, audited, builder, channelsOf, durable, note, onThread, open, send } from "../support/traps.ts";

/* The traps of LangGraph that concern how a thread is driven (T9 to T14), each with the promise in its place. */

const { pool } = await testDatabase();
const ourSaver = (): CountersignSaver => new CountersignSaver(pool);

afterEach(() => moveClock(pool, { byMs: 0 }));

describe("T9 and T10: finished siblings", () => {
  const Fan = Annotation.Root({
    items: Annotation<string[]>,
    log: Annotation<string[]>({ reducer: (all, more) => [...all, ...more], default: () => [] }),
  });

  /** One branch for each item; the one called "ask" waits for a person. */
  function fanOut(name: string, ran: string[]): AnyGraph {
    return durable(
      name,
      new StateGraph(Fan)
        .addNode("work", async ({ item }: { item: string }) => {
          ran.push(item);
          if (item === "ask") await commit(send, { to: "a@example.org" });
          return { log: [item] };
        })
        .addConditionalEdges(START, ({ items }) => items.map((item) => new Send("work", { item })), ["work"])
        .addEdge("work", END),
    );
  }

  it("refuses to start a thread id again, so that new input never discards what siblings have finished", async () => {
    const ran: string[] = [];
    const graph = fanOut("t9", ran);
    await using cs = await open(pool, graph);
    await cs.start(graph, { items: ["one", "ask"] }, { threadId: "t9" });
    await expect(cs.start(graph, { items: ["other"] }, { threadId: "t9" })).rejects.toMatchObject({
      code: "THREAD_EXISTS",
    });
    await approveAll(cs, "t9");
    await cs.work({ until: "idle" });
    expect(await cs.result("t9")).toMatchObject({ output: { items: ["one", "ask"], log: ["one", "ask"] } });
    expect(await cs.intents("t9")).toHaveLength(1);
  });

  it("runs a finished sibling once, however often the step is taken up again", async () => {
    const ran: string[] = [];
    const graph = fanOut("t10", ran);
    await using cs = await open(pool, graph);
    await cs.start(graph, { items: ["one", "ask", "two"] }, { threadId: "t10" });
    await approveAll(cs, "t10");
    await cs.work({ until: "idle" });
    expect(await cs.result("t10")).toMatchObject({ status: "completed", output: { log: ["one", "ask", "two"] } });
    expect(ran.sort()).toEqual(["ask", "ask", "one", "two"]);
  });
});

describe("T11: a driver whose lease was taken over", () => {
  it("writes nothing when it wakes up beside its successor: nothing is recorded twice, and the thread completes once", async () => {
    const gates = { zombie: gate(), successor: gate() };
    const drivers: (keyof typeof gates)[] = ["zombie", "successor"];
    const graph = durable(
      "t11",
      builder()
        .addNode("work", async () => {
          const driver = drivers.shift() ?? "zombie";
          await gates[driver].pass();
          await commit(note, { text: driver }, { wait: false, key: driver });
          return { log: [driver] };
        })
        .addNode("end", () => ({ log: ["end"] }))
        .addEdge(START, "work")
        .addEdge("work", "end")
        .addEdge("end", END),
    );
    await using zombie = await open(pool, graph);
    await using successor = await open(pool, graph);
    const stranded = zombie.start(graph, {}, { threadId: "t11" });
    await gates.zombie.reached();
    await moveClock(pool, { byMs: 31_000 });
    const working = successor.work({ until: "idle" });
    await gates.successor.reached();
    const written = await channelsOf(pool, "t11");
    gates.zombie.open();
    expect(await stranded).toMatchObject({ status: "running", error: null });
    expect(await channelsOf(pool, "t11")).toEqual(written);
    gates.successor.open();
    await working;
    expect(await successor.result("t11")).toMatchObject({ output: { log: ["successor", "end"] } });
    expect(await successor.intents("t11")).toMatchObject([{ payload: { text: "successor" } }]);
    expect(await audited(successor, "t11")).toMatchObject({ "intent.recorded": 1, "thread.completed": 1 });
  });

  it("cannot take a thread back that its successor leaves waiting", async () => {
    const blocked = gate();
    let passes = 0;
    const graph = durable(
      "t11-waiting",
      builder()
        .addNode("work", async () => {
          if (passes++ === 0) await blocked.pass();
          return { log: [(await commit(send, { to: "a@example.org" })).status] };
        })
        .addEdge(START, "work")
        .addEdge("work", END),
    );
    await using zombie = await open(pool, graph);
    await using successor = await open(pool, graph);
    const stranded = zombie.start(graph, {}, { threadId: "t11-waiting" });
    await blocked.reached();
    await moveClock(pool, { byMs: 31_000 });
    await successor.work({ until: "idle" });
    blocked.open();
    expect(await stranded).toMatchObject({ status: "waiting", error: null });
    await approveAll(successor, "t11-waiting");
    await successor.work({ until: "idle" });
    expect(await successor.result("t11-waiting")).toMatchObject({ output: { log: ["succeeded"] } });
    expect(await audited(successor, "t11-waiting")).toMatchObject({
      "intent.recorded": 1,
      "intent.succeeded": 1,
      "thread.completed": 1,
    });
  });
});

describe("T12: an async graph whose checkpoint the database refuses", () => {
  it.each([
    ["checkpoints", "new.metadata ->> 'step' = '1'"],
    ["checkpoint_writes", "new.channel = 'log'"],
  ])("is lost and says so, without an unhandled rejection while it runs (%s)", async (table, when) => {
    const threadId = `t12-${table}`;
    const unhandled: unknown[] = [];
    const onUnhandled = (reason: unknown) => void unhandled.push(reason);
    const graph = defineGraph({
      name: "t12",
      version: 1,
      durability: "async",
      lossWindow: "the last steps",
      graph: builder()
        .addNode("first", () => ({ log: ["first"] }))
        .addNode("second", async (_state, config) => {
          const drive = config.configurable?.[DRIVE_KEY] as Drive;
          await vi.waitUntil(() => drive.persistenceError !== undefined);
          return { log: ["second"] };
        })
        .addEdge(START, "first")
        .addEdge("first", "second")
        .addEdge("second", END),
    });
    await using cs = await open(pool, graph);
    const refusal = await refuseInserts(pool, { table, when: `new.thread_id = '${threadId}' and ${when}` });
    process.on("unhandledRejection", onUnhandled);
    const run = await cs.start(graph, {}, { threadId });
    process.off("unhandledRejection", onUnhandled);
    await refusal.end();
    expect(unhandled).toEqual([]);
    expect(run).toMatchObject({ status: "lost", output: undefined, error: { message: "the test refuses this row" } });
    expect(await audited(cs, threadId)).toEqual({ "thread.started": 1, "thread.lost": 1 });
  });

  it("goes on from what was persisted when it is retried", async () => {
    const graph = defineGraph({
      name: "t12-retry",
      version: 1,
      durability: "async",
      lossWindow: "the last steps",
      graph: builder()
        .addNode("first", () => ({ log: ["first"] }))
        .addNode("second", () => ({ log: ["second"] }))
        .addEdge(START, "first")
        .addEdge("first", "second")
        .addEdge("second", END),
    });
    await using cs = await open(pool, graph);
    const refusal = await refuseInserts(pool, { table: "checkpoints", when: "new.metadata ->> 'step' = '1'" });
    const lost = await cs.start(graph, {}, { threadId: "t12-retry" });
    await refusal.end();
    await cs.retry("t12-retry");
    await cs.work({ until: "idle" });
    expect(lost.status).toBe("lost");
    expect(await cs.result("t12-retry")).toMatchObject({ output: { log: ["first", "second"] } });
  });
});

describe("T13: deleting", () => {
  it("refuses to delete the checkpoints of a thread that Countersign drives", async () => {
    const graph = durable(
      "t13",
      builder()
        .addNode("propose", async () => {
          await commit(send, { to: "a@example.org" });
          return {};
        })
        .addEdge(START, "propose")
        .addEdge("propose", END),
    );
    await using cs = await open(pool, graph);
    await cs.start(graph, {}, { threadId: "t13" });
    const kept = await channelsOf(pool, "t13");
    await expect(ourSaver().deleteThread("t13")).rejects.toMatchObject({ code: "BOUNDARY" });
    expect(await channelsOf(pool, "t13")).toEqual(kept);
    await approveAll(cs, "t13");
    await cs.work({ until: "idle" });
    expect(await cs.result("t13")).toMatchObject({ status: "completed" });
  });

  it("deletes a thread of anybody else's, and no other", async () => {
    const graph = builder()
      .addNode("first", () => ({ log: ["first"] }))
      .addEdge(START, "first")
      .addEdge("first", END)
      .compile({ checkpointer: ourSaver() });
    await graph.invoke({}, onThread("t13-theirs"));
    await graph.invoke({}, onThread("t13-other"));
    await ourSaver().deleteThread("t13-theirs");
    expect(await ourSaver().getTuple(onThread("t13-theirs"))).toBeUndefined();
    expect(await channelsOf(pool, "t13-theirs")).toEqual([]);
    expect((await graph.getState(onThread("t13-other"))).values).toEqual({ log: ["first"] });
  });
});

describe("T14: recorded before a wait", () => {
  it("records what a node committed without waiting together with the wait that follows", async () => {
    const graph = durable(
      "t14",
      builder()
        .addNode("work", async () => {
          await commit(note, { text: "before the wait" }, { wait: false });
          return { log: [(await commit(send, { to: "a@example.org" })).status] };
        })
        .addEdge(START, "work")
        .addEdge("work", END),
    );
    await using cs = await open(pool, graph);
    await cs.start(graph, {}, { threadId: "t14" });
    const { rows } = await pool.query(
      "select count(*)::int as intents, count(distinct xmin::text)::int as transactions from countersign.execution_intents where thread_id = 't14'",
    );
    expect(rows).toEqual([{ intents: 2, transactions: 1 }]);
    await approveAll(cs, "t14");
    await cs.work({ until: "idle" });
    expect(await cs.result("t14")).toMatchObject({ output: { log: ["succeeded"] } });
    expect(await audited(cs, "t14")).toMatchObject({ "intent.recorded": 2, "intent.succeeded": 2 });
  });
});
