import { HumanMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import {
  type BaseCheckpointSaver,
  Command,
  type CompiledStateGraph,
  END,
  type Interrupt,
  interrupt,
  MemorySaver,
  START,
  StateGraph,
} from "@langchain/langgraph";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { createAgent, humanInTheLoopMiddleware } from "langchain";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { CountersignSaver } from "../../checkpointers/index.ts";
import { postgres } from "../../src/backends/postgres/index.ts";
import { type AnyGraph, type Countersign, commit, countersign, defineGraph } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { approve, approveAll, Log, messenger, mia, oneNode, pendingText, pendingTexts } from "../support/messenger.ts";
import { ScriptedModel } from "../support/scripted-model.ts";

/*
 * Each hole of plain LangGraph is shown first, against LangGraph itself, and then closed: the same
 * graph under Countersign. When a LangGraph release mends one, its first test fails and says so.
 */

const { pool } = await testDatabase();

const plainSaver = new PostgresSaver(pool, undefined, { schema: "plain" });
await plainSaver.setup();

const open = (...graphs: AnyGraph[]): Promise<Countersign> =>
  countersign({ database: pool, graphs, backend: postgres() });

/** A graph with these nodes side by side. */
function sideBySide<Node extends () => Promise<{ log: string[] }>>(nodes: Readonly<Record<string, Node>>) {
  const builder = new StateGraph(Log);
  for (const [name, node] of Object.entries(nodes)) {
    builder
      .addNode(name, node)
      .addEdge(START, name as never)
      .addEdge(name as never, END);
  }
  return builder;
}

/** What a plain graph asks, by what it asks. */
async function asked(
  compiled: Pick<CompiledStateGraph<unknown, unknown>, "getState">,
  config: object,
): Promise<Interrupt[]> {
  const { tasks } = await compiled.getState(config);
  return tasks.flatMap((task) => task.interrupts);
}

/** Everything that LangGraph's tables hold of a thread. */
async function stored(threadId: string): Promise<unknown[]> {
  const { rows } = await pool.query(
    `select checkpoint_id, task_id, idx, channel, md5(blob) from countersign.checkpoint_writes where thread_id = $1
     union all select checkpoint_id, '', 0, '', md5(checkpoint::text) from countersign.checkpoints where thread_id = $1
     order by 1, 2, 3, 4`,
    [threadId],
  );
  return rows;
}

describe("one answer while two questions are open", () => {
  it("LangGraph: a scalar resume answers both", async () => {
    const ask = (what: string) => async () => ({ log: [`${what} ${interrupt(what)}`] });
    const compiled = sideBySide({ pay: ask("pay"), publish: ask("publish") }).compile({ checkpointer: plainSaver });
    const config = { configurable: { thread_id: "scalar" } };
    await compiled.invoke({ log: [] }, config);

    const result = await compiled.invoke(new Command({ resume: "approved" }), config);

    expect([...result.log].sort()).toEqual(["pay approved", "publish approved"]);
  });

  it("Countersign: an approval is about one request, the other stays open", async () => {
    const { send, calls } = messenger();
    const ask = (text: string) => async () => ({ log: [(await commit(send, { text })).status] });
    const graph = defineGraph({
      name: "scalar",
      version: 1,
      durability: "durable",
      commitments: [send],
      graph: sideBySide({ pay: ask("pay"), publish: ask("publish") }),
    });
    await using cs = await open(graph);
    const run = await cs.start(graph, { log: [] }, { threadId: "one-of-two" });

    await approve(cs, await pendingText(cs, run.threadId, "pay"));
    await cs.work({ until: "idle" });

    expect(calls).toEqual(["pay"]);
    expect(await pendingTexts(cs, run.threadId)).toEqual(["publish"]);
  });
});

describe("a double click", () => {
  it("LangGraph: the same answer twice approves the node's next question, too", async () => {
    const compiled = new StateGraph(Log)
      .addNode("node", async () => ({ log: [`pay 10 ${interrupt("pay 10")}`, `pay 9999 ${interrupt("pay 9999")}`] }))
      .addEdge(START, "node")
      .compile({ checkpointer: plainSaver });
    const config = { configurable: { thread_id: "double" } };
    await compiled.invoke({ log: [] }, config);
    const [first] = await asked(compiled, config);
    const resume = { [String(first?.id)]: "approved" };

    await compiled.invoke(new Command({ resume }), config);
    const result = await compiled.invoke(new Command({ resume }), config);

    expect(result.log).toEqual(["pay 10 approved", "pay 9999 approved"]);
  });

  const twoInSeries = () => {
    const { send, calls } = messenger();
    const graph = oneNode(async () => {
      const first = await commit(send, { text: "pay 10" });
      const second = await commit(send, { text: "pay 9999" });
      return { log: [first.status, second.status] };
    }, [send]);
    return { graph, calls };
  };

  it("Countersign: the second click is told that it came too late, and the next request stays open", async () => {
    const { graph, calls } = twoInSeries();
    await using cs = await open(graph);
    const { threadId, pending } = await cs.start(graph, { log: [] });
    const click = () => cs.approve(String(pending[0]?.id), { by: mia, digest: String(pending[0]?.digest) });

    await click();
    await cs.work({ until: "idle" });
    await expect(click()).rejects.toMatchObject({ code: "ALREADY_DECIDED" });
    await cs.work({ until: "idle" });

    expect(calls).toEqual(["pay 10"]);
    expect(await pendingTexts(cs, threadId)).toEqual(["pay 9999"]);
  });

  it("Countersign: of two clicks at the same time one counts", async () => {
    const { graph, calls } = twoInSeries();
    await using cs = await open(graph);
    const { threadId, pending } = await cs.start(graph, { log: [] });
    const click = () => cs.approve(String(pending[0]?.id), { by: mia, digest: String(pending[0]?.digest) });

    const clicks = await Promise.allSettled([click(), click()]);
    await cs.work({ until: "idle" });

    expect(clicks.filter((click) => click.status === "fulfilled")).toHaveLength(1);
    expect(clicks.find((click) => click.status === "rejected")?.reason).toMatchObject({ code: "ALREADY_DECIDED" });
    expect(calls).toEqual(["pay 10"]);
    expect(await pendingTexts(cs, threadId)).toEqual(["pay 9999"]);
  });
});

describe("approve and reject at the same time", () => {
  it("LangGraph: the node runs to its end twice and does both", async () => {
    const acted: string[] = [];
    let bothAnswered = () => {};
    const both = new Promise<void>((resolve) => {
      bothAnswered = resolve;
    });
    const process = (checkpointer: BaseCheckpointSaver) =>
      new StateGraph(Log)
        .addNode("node", async () => {
          const answer: string = interrupt("pay?");
          if (acted.push(answer) === 2) bothAnswered();
          await both;
          return { log: [answer] };
        })
        .addEdge(START, "node")
        .compile({ checkpointer });
    const config = { configurable: { thread_id: "race" } };
    const here = process(plainSaver);
    await here.invoke({ log: [] }, config);
    const there = process(new PostgresSaver(pool, undefined, { schema: "plain" }));

    const ends = await Promise.allSettled([
      here.invoke(new Command({ resume: "approved" }), config),
      there.invoke(new Command({ resume: "rejected" }), config),
    ]);

    expect(ends.map((end) => end.status)).toEqual(["fulfilled", "fulfilled"]);
    expect(acted.sort()).toEqual(["approved", "rejected"]);
  });

  it("Countersign: exactly one wins, the other one is told, and the handler agrees with the winner", async () => {
    const { send, calls } = messenger();
    const graph = oneNode(async () => ({ log: [(await commit(send, { text: "pay" })).status] }), [send]);
    await using here = await open(graph);
    await using there = await open(graph);
    for (let round = 0; round < 10; round++) {
      calls.length = 0;
      const { threadId, pending } = await here.start(graph, { log: [] });
      const id = String(pending[0]?.id);
      const approving = () => here.approve(id, { by: mia, digest: String(pending[0]?.digest) });
      const rejecting = () => there.reject(id, { by: { id: "noa", roles: ["manager"] }, reason: "no" });

      // Who is asked first changes, so that both get to win.
      const [first, second] = round % 2 === 0 ? [approving, rejecting] : [rejecting, approving];
      const ends = await Promise.allSettled([first(), second()]);
      await Promise.all([here.work({ until: "idle" }), there.work({ until: "idle" })]);
      await here.work({ until: "idle" });

      const lost = ends.filter((end) => end.status === "rejected");
      expect(lost.map((end) => end.reason.code)).toEqual(["ALREADY_DECIDED"]);
      const approved = (ends[0].status === "fulfilled") === (first === approving);
      expect(calls).toEqual(approved ? ["pay"] : []);
      const { output } = await here.result<{ log: string[] }>(threadId);
      expect(output?.log).toEqual([approved ? "succeeded" : "rejected"]);
    }
  });
});

describe("an answer that nobody checks", () => {
  it("LangGraph: a recovery without an answer feeds the last answer to the next question", async () => {
    const compiled = new StateGraph(Log)
      .addNode("node", async () => ({ log: [`pay 10 ${interrupt("pay 10")}`, `pay 9999 ${interrupt("pay 9999")}`] }))
      .addEdge(START, "node")
      .compile({ checkpointer: plainSaver });
    const config = { configurable: { thread_id: "stale" } };
    await compiled.invoke({ log: [] }, config);
    await compiled.invoke(new Command({ resume: "approved" }), config);

    const result = await compiled.invoke(null, config);

    expect(result.log).toEqual(["pay 10 approved", "pay 9999 approved"]);
  });

  it("LangGraph: an answer to a question that was never asked is accepted", async () => {
    const compiled = new StateGraph(Log)
      .addNode("node", async () => ({ log: [String(interrupt("pay?"))] }))
      .addEdge(START, "node")
      .compile({ checkpointer: new MemorySaver() });
    const config = { configurable: { thread_id: "unknown" } };
    await compiled.invoke({ log: [] }, config);

    const resume = { "0123456789abcdef0123456789abcdef": "approved" };
    await expect(compiled.invoke(new Command({ resume }), config)).resolves.toBeDefined();
  });

  it("Countersign: an approval of an unknown intent is refused", async () => {
    await using cs = await open();

    const approval = cs.approve("00000000-0000-5000-8000-000000000000", { by: mia, digest: "" });

    await expect(approval).rejects.toMatchObject({ code: "INTENT_NOT_FOUND" });
  });
});

describe("LangGraph's own resume on a thread of Countersign's", () => {
  const builderOf = (send: ReturnType<typeof messenger>["send"]) =>
    new StateGraph(Log)
      .addNode("node", async () => ({ log: [(await commit(send, { text: "pay" })).status] }))
      .addEdge(START, "node")
      .addEdge("node", END);

  it.each(["sync", "async", "exit"] as const)("has no effect, under durability %s", async (durability) => {
    const { send, calls } = messenger();
    const builder = builderOf(send);
    const graph = defineGraph({
      name: `raw-${durability}`,
      version: 1,
      durability: "durable",
      commitments: [send],
      graph: builder,
    });
    await using cs = await open(graph);
    const { threadId, pending } = await cs.start(graph, { log: [] });
    const byHand = builder.compile({ checkpointer: new CountersignSaver(pool) });
    const config = { configurable: { thread_id: threadId }, durability };
    const before = await stored(threadId);

    const byId = { [String(pending[0]?.id)]: "approved" };
    for (const resume of ["approved", { decisions: [{ type: "approve" }] }, byId]) {
      await expect(byHand.invoke(new Command({ resume }), config)).rejects.toMatchObject({ code: "BOUNDARY" });
    }
    await cs.work({ until: "idle" });

    expect(await stored(threadId)).toEqual(before);
    expect(await cs.intent(String(pending[0]?.id))).toMatchObject({ status: "awaiting_decision", attempt: 0 });
    expect(calls).toEqual([]);
    await approveAll(cs, threadId);
    expect(calls).toEqual(["pay"]);
  });

  it("new input by hand writes nothing to the thread either", async () => {
    const { send } = messenger();
    const builder = builderOf(send);
    const graph = defineGraph({
      name: "raw-input",
      version: 1,
      durability: "durable",
      commitments: [send],
      graph: builder,
    });
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });
    const byHand = builder.compile({ checkpointer: new CountersignSaver(pool) });
    const before = await stored(threadId);

    const config = { configurable: { thread_id: threadId }, durability: "sync" } as const;
    await expect(byHand.invoke({ log: ["intruder"] }, config)).rejects.toMatchObject({ code: "BOUNDARY" });

    expect(await stored(threadId)).toEqual(before);
    expect(await cs.intents(threadId)).toHaveLength(1);
  });

  it.each([
    ["without a checkpointer", undefined],
    ["under a checkpointer of another's", new MemorySaver()],
  ])("commit() in a graph %s is refused", async (_where, checkpointer) => {
    const { send } = messenger();
    const compiled = builderOf(send).compile(checkpointer === undefined ? {} : { checkpointer });

    const run = compiled.invoke({ log: [] }, { configurable: { thread_id: "foreign" } });

    await expect(run).rejects.toMatchObject({ name: "BoundaryError", code: "BOUNDARY" });
  });
});

/** The interrupts that are stored of a thread. */
async function storedInterrupts(threadId: string): Promise<number> {
  const { rowCount } = await pool.query(
    "select from countersign.checkpoint_writes where thread_id = $1 and channel = '__interrupt__'",
    [threadId],
  );
  return rowCount ?? 0;
}

describe("LangGraph's interrupt() under Countersign", () => {
  const pausing = async () => ({ log: [String(interrupt("pay?"))] });

  it("in a durable graph is refused with the remedy, and records nothing", async () => {
    const graph = oneNode(pausing);
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    expect(run).toMatchObject({ status: "failed", pending: [], error: { code: "BOUNDARY" } });
    expect(run.error?.message).toContain("requestDecision()");
    expect(await cs.intents(run.threadId)).toEqual([]);
    expect(await storedInterrupts(run.threadId)).toBe(0);
  });

  it("in an async graph is refused, too", async () => {
    const builder = new StateGraph(Log).addNode("node", pausing).addEdge(START, "node");
    const lossWindow = "a draft";
    const graph = defineGraph({ name: "pausing", version: 1, durability: "async", lossWindow, graph: builder });
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    expect(run).toMatchObject({ status: "failed", pending: [], error: { code: "BOUNDARY" } });
    expect(await storedInterrupts(run.threadId)).toBe(0);
  });

  it("in langchain's own approval middleware is refused, too, and the tool does not run", async () => {
    const ran: string[] = [];
    const pay = tool(async ({ text }) => String(ran.push(text)), {
      name: "pay",
      description: "Pays.",
      schema: z.object({ text: z.string() }),
    });
    const model = new ScriptedModel([[{ id: "call-1", name: "pay", args: { text: "9999" } }], "done"]);
    const approval = humanInTheLoopMiddleware({ interruptOn: { pay: true } } as never);
    const graph = defineGraph({
      name: "approving",
      version: 1,
      durability: "durable",
      graph: ({ checkpointer }) => createAgent({ model, tools: [pay], middleware: [approval] as never, checkpointer }),
    });
    await using cs = await open(graph);

    const run = await cs.start(graph, { messages: [new HumanMessage("pay")] });

    expect(run).toMatchObject({ status: "failed", pending: [], error: { code: "BOUNDARY" } });
    expect(ran).toEqual([]);
  });
});
