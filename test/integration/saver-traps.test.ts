import { Command, END, START } from "@langchain/langgraph";
import type { BaseCheckpointSaver } from "@langchain/langgraph-checkpoint";
import { afterEach, describe, expect, it } from "vitest";
import { CountersignSaver } from "../../checkpointers/index.ts";
import { commit } from "../../src/index.ts";
import { runningTask, writeWithTask } from "../../src/langgraph.ts";
import { moveClock } from "../../src/testing/clock.ts";
import { testDatabase } from "../support/database.ts";
import { gate } from "../support/gate.ts";
import { refuseInserts } from "../support/refuse-inserts.ts";
import { builder, channelsOf, durable, note, onThread, open, StockSaver, send } from "../support/traps.ts";

/*
 * The traps of LangGraph's checkpointing that concern what a step writes (T1, T5, and I1),
 * each with the promise that stands in its place. Where the stock `PostgresSaver` falls into one, the
 * same scenario shows that it does: if that ever changes upstream, we want to know.
 */

const { pool } = await testDatabase();
const ourSaver = (): CountersignSaver => new CountersignSaver(pool);

/** Past the back-off of a thread whose drive met a broken database. */
const afterBackoff = (): Promise<void> => moveClock(pool, { byMs: 60_000 });
afterEach(() => moveClock(pool, { byMs: 0 }));

async function rows<Row>(text: string, ...values: unknown[]): Promise<Row[]> {
  return (await pool.query(text, values)).rows as Row[];
}

/** `first` also writes to a channel that the graph does not have; that write lives in its putWrites alone. */
async function withRefusedWrite(saver: BaseCheckpointSaver, threadId: string, settled: () => Promise<unknown>) {
  let runs = 0;
  const graph = builder()
    .addNode("first", () => {
      runs++;
      const running = runningTask();
      if (running !== undefined) writeWithTask(running, "aside", "kept?");
      return { log: ["first"] };
    })
    .addNode("second", () => ({ log: ["second"] }))
    .addEdge(START, "first")
    .addEdge("first", "second")
    .addEdge("second", END)
    .compile({ checkpointer: saver });
  const refusal = await refuseInserts(pool, { table: "checkpoint_writes", when: "new.channel = 'aside'" });
  await expect(graph.invoke({}, onThread(threadId))).rejects.toThrow("the test refuses this row");
  await settled();
  await refusal.end();
  const output = await graph.invoke(null, onThread(threadId));
  const aside = (await channelsOf(pool, threadId)).filter((channel) => channel === "aside").length;
  return { runs, aside, output };
}

/** Two siblings: the writes of `quick` are refused while `slow` still runs, so they share no statement with the next put. */
async function withRefusedSibling(saver: BaseCheckpointSaver, threadId: string, settled: () => Promise<unknown>) {
  const ran: string[] = [];
  const refused = gate();
  const written: Promise<void>[] = [];
  const putWrites = saver.putWrites.bind(saver);
  saver.putWrites = (config, writes, taskId) => {
    const call = putWrites(config, writes, taskId);
    written.push(call);
    call.catch(refused.open);
    return call;
  };
  const graph = builder()
    .addNode("quick", () => {
      ran.push("quick");
      return { log: ["quick"] };
    })
    .addNode("slow", async () => {
      ran.push("slow");
      await refused.opened;
      return { log: ["slow"] };
    })
    .addEdge(START, "quick")
    .addEdge(START, "slow")
    .addEdge("quick", END)
    .addEdge("slow", END)
    .compile({ checkpointer: saver });
  const refusal = await refuseInserts(pool, {
    table: "checkpoint_writes",
    when: "new.channel = 'log' and convert_from(new.blob, 'utf8') = '[\"quick\"]'",
  });
  await expect(graph.invoke({}, onThread(threadId))).rejects.toThrow("the test refuses this row");
  await Promise.allSettled([...written, settled()]);
  await refusal.end();
  const steps = (await graph.getState(onThread(threadId))).metadata?.step;
  await graph.invoke(null, onThread(threadId));
  return { steps, ran };
}

describe("T1: a checkpoint never commits before the writes that led to it", () => {
  it("keeps a step's writes: where they were refused, the step runs again", async () => {
    expect(await withRefusedWrite(ourSaver(), "t1-ours", async () => {})).toEqual({
      runs: 2,
      aside: 1,
      output: { log: ["first", "second"] },
    });
  });

  it("is a hole in the stock saver: the step counts as done and its write is gone", async () => {
    const saver = new StockSaver(pool);
    expect(await withRefusedWrite(saver, "t1-stock", () => saver.settled())).toEqual({
      runs: 1,
      aside: 0,
      output: { log: ["first", "second"] },
    });
  });

  it("holds a checkpoint back that comes after refused writes, and keeps what the siblings wrote", async () => {
    expect(await withRefusedSibling(ourSaver(), "t1-sibling-ours", async () => {})).toEqual({
      steps: 0,
      ran: ["quick", "slow", "quick"],
    });
  });

  it("is a hole in the stock saver also then", async () => {
    const saver = new StockSaver(pool);
    expect(await withRefusedSibling(saver, "t1-sibling-stock", () => saver.settled())).toEqual({
      steps: 1,
      ran: ["quick", "slow"],
    });
  });

  it("records the intent of a step whose writes were refused once the database is back, and once only", async () => {
    const graph = durable(
      "t1",
      builder()
        .addNode("first", async () => {
          await commit(note, { text: "noted" }, { wait: false });
          return { log: ["first"] };
        })
        .addNode("second", () => ({ log: ["second"] }))
        .addEdge(START, "first")
        .addEdge("first", "second")
        .addEdge("second", END),
    );
    await using cs = await open(pool, graph);
    const refusal = await refuseInserts(pool, {
      table: "checkpoint_writes",
      when: "new.channel = '__countersign_intent__'",
    });
    const refused = await cs.start(graph, {}, { threadId: "t1" });
    expect(refused.status).toBe("ready");
    expect(await cs.intents("t1")).toEqual([]);
    await refusal.end();
    await afterBackoff();
    await cs.work({ until: "idle" });
    expect(await cs.result("t1")).toMatchObject({ status: "completed", output: { log: ["first", "second"] } });
    expect(await cs.intents("t1")).toMatchObject([{ commitment: "crm.note", status: "succeeded" }]);
    expect((await channelsOf(pool, "t1")).filter((channel) => channel === "__countersign_intent__")).toHaveLength(1);
  });
});

describe("I1: intents commit with the writes of their task, or not at all", () => {
  it("leaves no write of a task whose intent the database refused, waiting or not", async () => {
    const taskIds: string[] = [];
    const graph = durable(
      "i1",
      builder()
        .addNode("propose", async () => {
          taskIds.push(runningTask()?.taskId ?? "");
          await commit(note, { text: "noted" }, { wait: false });
          await commit(send, { to: "a@example.org" });
          return { log: ["sent"] };
        })
        .addEdge(START, "propose")
        .addEdge("propose", END),
    );
    await using cs = await open(pool, graph);
    const refusal = await refuseInserts(pool, { table: "execution_intents", when: "new.commitment = 'crm.note'" });
    await cs.start(graph, {}, { threadId: "i1" });
    const written = () =>
      rows("select channel from countersign.checkpoint_writes where task_id = $1", taskIds[0] as string);
    expect(await written()).toEqual([]);
    expect(await cs.intents("i1")).toEqual([]);
    await refusal.end();
    await afterBackoff();
    await cs.drive("i1");
    expect(await written()).toEqual([{ channel: "__interrupt__" }]);
    expect((await cs.intents("i1")).map((intent) => intent.commitment).sort()).toEqual(["crm.note", "mail.send"]);
    expect(new Set(taskIds).size).toBe(1);
  });

  it("commits the write, the intent and its audit row in one transaction", async () => {
    const graph = durable(
      "i1-together",
      builder()
        .addNode("propose", async () => {
          await commit(send, { to: "a@example.org" });
          return {};
        })
        .addEdge(START, "propose")
        .addEdge("propose", END),
    );
    await using cs = await open(pool, graph);
    await cs.start(graph, {}, { threadId: "i1-together" });
    const transactions = await rows(
      `select xmin from countersign.checkpoint_writes where thread_id = $1 and channel = '__interrupt__'
       union select xmin from countersign.execution_intents where thread_id = $1
       union select xmin from countersign.audit_log where thread_id = $1 and action = 'intent.recorded'`,
      "i1-together",
    );
    expect(transactions).toHaveLength(1);
  });
});

describe("T5: a failed task does not count as done", () => {
  /** The branch after `first` throws once: by then the node has left its writes. */
  async function failedBranch(saver: BaseCheckpointSaver, threadId: string) {
    let failures = 1;
    const graph = builder()
      .addNode("first", () => ({ log: ["first"] }))
      .addNode("second", () => ({ log: ["second"] }))
      .addEdge(START, "first")
      .addConditionalEdges("first", () => {
        if (failures-- > 0) throw new Error("no way on");
        return "second";
      })
      .addEdge("second", END)
      .compile({ checkpointer: saver });
    await expect(graph.invoke({}, onThread(threadId))).rejects.toThrow("no way on");
    return graph.invoke(null, onThread(threadId));
  }

  it("runs the failed step again on the next invoke(null), and goes on", async () => {
    expect(await failedBranch(ourSaver(), "t5-ours")).toEqual({ log: ["first", "second"] });
  });

  it("is a hole in the stock saver: the thread ends silently without the branch", async () => {
    expect(await failedBranch(new StockSaver(pool), "t5-stock")).toEqual({ log: ["first"] });
  });

  it("records no intent of a step that failed, and one when the step succeeds at last", async () => {
    let failures = 1;
    const graph = durable(
      "t5",
      builder()
        .addNode("first", async () => {
          await commit(note, { text: "noted" }, { wait: false });
          return { log: ["first"] };
        })
        .addNode("second", () => ({ log: ["second"] }))
        .addEdge(START, "first")
        .addConditionalEdges("first", () => {
          if (failures-- > 0) throw new Error("no way on");
          return "second";
        })
        .addEdge("second", END),
    );
    await using cs = await open(pool, graph);
    const failed = await cs.start(graph, {}, { threadId: "t5" });
    expect(failed).toMatchObject({ status: "failed", error: { message: "no way on" } });
    expect(await cs.intents("t5")).toEqual([]);
    await cs.retry("t5");
    await cs.work({ until: "idle" });
    expect(await cs.result("t5")).toMatchObject({ status: "completed", output: { log: ["first", "second"] } });
    expect(await cs.intents("t5")).toHaveLength(1);
  });

  it("is not what a jump to the parent graph is: its intent is recorded and its update counts", async () => {
    const inner = builder()
      .addNode("jump", async () => {
        await commit(note, { text: "jumped" }, { wait: false });
        return new Command({ graph: Command.PARENT, goto: "landed", update: { log: ["jumped"] } });
      })
      .addEdge(START, "jump")
      .compile();
    const graph = durable(
      "t5-jump",
      builder()
        .addNode("outer", inner, { ends: ["landed"] })
        .addNode("landed", () => ({ log: ["landed"] }))
        .addEdge(START, "outer")
        .addEdge("landed", END),
    );
    await using cs = await open(pool, graph);
    const run = await cs.start(graph, {}, { threadId: "t5-jump" });
    expect(run).toMatchObject({ status: "completed", output: { log: ["jumped", "landed"] } });
    expect(await cs.intents("t5-jump")).toMatchObject([{ payload: { text: "jumped" } }]);
  });
});
