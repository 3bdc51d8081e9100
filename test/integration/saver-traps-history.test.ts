import { Command, END, interrupt, START } from "@langchain/langgraph";
import type { BaseCheckpointSaver } from "@langchain/langgraph-checkpoint";
import { afterEach, describe, expect, it, vi } from "vitest";
import { CountersignSaver } from "../../checkpointers/index.ts";
import { commit } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { approveAll, builder, durable, onThread, open, StockSaver, send } from "../support/traps.ts";

/* The traps that concern which checkpoints belong together (T2) and which is the newest (T3). See saver-traps.test.ts. */

const { pool } = await testDatabase();
const ourSaver = (): CountersignSaver => new CountersignSaver(pool);

afterEach(() => {
  vi.useRealTimers();
});

describe("T2: a fork keeps its own values", () => {
  async function forkedPlan(saver: BaseCheckpointSaver, threadId: string) {
    let plans = 0;
    const graph = builder()
      .addNode("plan", () => ({ log: [`plan-${++plans}`] }))
      .addEdge(START, "plan")
      .addEdge("plan", END)
      .compile({ checkpointer: saver });
    await graph.invoke({}, onThread(threadId));
    const checkpoints = [];
    for await (const state of graph.getStateHistory(onThread(threadId))) checkpoints.push(state);
    const beforePlan = checkpoints.find((state) => state.next[0] === "plan");
    const returned = await graph.invoke(null, { ...beforePlan?.config, durability: "sync" });
    return { returned: returned.log, readBack: (await graph.getState(onThread(threadId))).values.log };
  }

  it("reads back on the fork what the fork wrote", async () => {
    expect(await forkedPlan(ourSaver(), "t2-ours")).toEqual({ returned: ["plan-2"], readBack: ["plan-2"] });
  });

  it("is a hole in the stock saver: the fork reads the other branch's value", async () => {
    expect(await forkedPlan(new StockSaver(pool), "t2-stock")).toEqual({ returned: ["plan-2"], readBack: ["plan-1"] });
  });

  it("leaves the old branch as it was", async () => {
    await forkedPlan(ourSaver(), "t2-old-branch");
    const logs: unknown[] = [];
    for await (const tuple of ourSaver().list(onThread("t2-old-branch")))
      logs.push(tuple.checkpoint.channel_values.log);
    expect(logs).toContainEqual(["plan-1"]);
    expect(logs).toContainEqual(["plan-2"]);
  });
});

describe("T3: the head of a thread does not depend on the clocks of machines", () => {
  const fiveSecondsBehind = (): void => {
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() - 5_000 });
  };

  /** A machine with the right clock asks; one that is behind goes on; a third looks at the thread. */
  async function handedOver(saver: BaseCheckpointSaver, threadId: string) {
    let paid = 0;
    const graph = builder()
      .addNode("ask", () => ({ log: [interrupt("pay?") as string] }))
      .addNode("pay", () => ({ log: [`paid-${++paid}`] }))
      .addEdge(START, "ask")
      .addEdge("ask", "pay")
      .addEdge("pay", END)
      .compile({ checkpointer: saver });
    await graph.invoke({}, onThread(threadId));
    fiveSecondsBehind();
    await graph.invoke(new Command({ resume: "yes" }), onThread(threadId));
    vi.useRealTimers();
    await graph.invoke(null, onThread(threadId));
    return { paid, log: (await graph.getState(onThread(threadId))).values.log };
  }

  it("goes on from what was written last, although an older machine clock wrote it", async () => {
    expect(await handedOver(ourSaver(), "t3-ours")).toEqual({ paid: 1, log: ["yes", "paid-1"] });
  });

  it("is a hole in the stock saver: the third machine pays again", async () => {
    expect(await handedOver(new StockSaver(pool), "t3-stock")).toMatchObject({ paid: 2 });
  });

  it("lists the newest first by the order of writing", async () => {
    await handedOver(ourSaver(), "t3-list");
    const steps: unknown[] = [];
    for await (const tuple of ourSaver().list(onThread("t3-list"))) steps.push(tuple.metadata?.step);
    expect(steps).toEqual([2, 1, 0, -1]);
  });

  it("records no intent twice when a worker with a slow clock drives a thread on", async () => {
    const graph = durable(
      "t3",
      builder()
        .addNode("first", async () => ({ log: [(await commit(send, { to: "first@example.org" })).status] }))
        .addNode("second", async () => ({ log: [(await commit(send, { to: "second@example.org" })).status] }))
        .addEdge(START, "first")
        .addEdge("first", "second")
        .addEdge("second", END),
    );
    await using cs = await open(pool, graph);
    await cs.start(graph, {}, { threadId: "t3" });
    fiveSecondsBehind();
    await approveAll(cs, "t3");
    await cs.work({ until: "idle" });
    vi.useRealTimers();
    await approveAll(cs, "t3");
    await cs.work({ until: "idle" });
    expect(await cs.result("t3")).toMatchObject({ output: { log: ["succeeded", "succeeded"] } });
    expect((await cs.intents("t3")).map((intent) => intent.payload)).toEqual([
      { to: "first@example.org" },
      { to: "second@example.org" },
    ]);
  });
});
