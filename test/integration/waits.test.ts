import { HumanMessage, type ToolMessage } from "@langchain/core/messages";
import { RunnableLambda } from "@langchain/core/runnables";
import { tool } from "@langchain/core/tools";
import { END, entrypoint, MessagesAnnotation, Send, START, StateGraph, task } from "@langchain/langgraph";
import { ToolNode } from "@langchain/langgraph/prebuilt";
import { createAgent } from "langchain";
import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { postgres } from "../../src/backends/postgres/index.ts";
import {
  type AnyGraph,
  type Countersign,
  commit,
  commitAll,
  countersign,
  defineGraph,
  requestDecision,
  sleep,
  waitForEvent,
} from "../../src/index.ts";
import { moveClock } from "../../src/testing/clock.ts";
import { testDatabase } from "../support/database.ts";
import { gate } from "../support/gate.ts";
import {
  approve,
  approveAll,
  Log,
  type Messenger,
  messenger,
  mia,
  oneNode,
  pendingText,
  pendingTexts,
  scribe,
  textOf,
} from "../support/messenger.ts";
import { ScriptedModel } from "../support/scripted-model.ts";

const { pool } = await testDatabase();
afterEach(() => moveClock(pool, { byMs: 0 }));

const open = (...graphs: AnyGraph[]): Promise<Countersign> =>
  countersign({ database: pool, graphs, backend: postgres() });

const durable = (name: string, graph: Parameters<typeof defineGraph>[0]["graph"], { send }: Messenger): AnyGraph =>
  defineGraph({ name, version: 1, durability: "durable", commitments: [send], graph });

/** The log that a thread ended with. */
async function logOf(cs: Countersign, threadId: string): Promise<string[]> {
  const { status, output } = await cs.result<{ log: string[] }>(threadId);
  expect(status).toBe("completed");
  return output?.log ?? [];
}

/** The transactions that wrote the intents of a thread. */
async function transactionsOf(threadId: string): Promise<string[]> {
  const { rows } = await pool.query(
    "select distinct xmin::text from countersign.execution_intents where thread_id = $1",
    [threadId],
  );
  return rows.map((row) => row.xmin);
}

/** Intents that name a checkpoint which is not there. */
async function dangling(threadId: string): Promise<number> {
  const { rowCount } = await pool.query(
    `select from countersign.execution_intents i where thread_id = $1 and not exists (
       select from countersign.checkpoints c where c.thread_id = i.thread_id and c.checkpoint_id = i.checkpoint_id)`,
    [threadId],
  );
  return rowCount ?? 0;
}

/** The tasks of a thread that wait, each with how many interrupts LangGraph keeps of it. */
async function interrupts(threadId: string): Promise<number[]> {
  const { rows } = await pool.query(
    `select count(*)::int as n from countersign.checkpoint_writes
     where thread_id = $1 and channel = '__interrupt__' group by checkpoint_ns, task_id`,
    [threadId],
  );
  return rows.map((row) => row.n);
}

describe("waits in a node", () => {
  it("follow each other in series, each asked when the one before has ended", async () => {
    const { send, calls } = messenger();
    const graph = oneNode(async () => {
      const first = await commit(send, { text: "one" });
      const second = await commit(send, { text: "two" });
      return { log: [first, second].map((outcome) => `${outcome.input.text} ${outcome.status}`) };
    }, [send]);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    expect(await pendingTexts(cs, threadId)).toEqual(["one"]);
    await approve(cs, await pendingText(cs, threadId, "one"));
    await cs.work({ until: "idle" });
    expect(await pendingTexts(cs, threadId)).toEqual(["two"]);
    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["one succeeded", "two succeeded"]);
    expect(calls).toEqual(["one", "two"]);
  });

  it("asked for together are recorded together, in one interrupt and one transaction", async () => {
    const { send, calls } = messenger();
    const graph = oneNode(async () => {
      const outcomes = await Promise.all([commit(send, { text: "one" }), commit(send, { text: "two" })]);
      return { log: outcomes.map((outcome) => `${outcome.input.text} ${outcome.status}`) };
    }, [send]);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    expect(await pendingTexts(cs, threadId)).toEqual(["one", "two"]);
    expect(await interrupts(threadId)).toEqual([1]);
    expect(await transactionsOf(threadId)).toHaveLength(1);
    await approve(cs, await pendingText(cs, threadId, "two"));
    await cs.work({ until: "idle" });
    expect(await pendingTexts(cs, threadId)).toEqual(["one"]);
    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["one succeeded", "two succeeded"]);
    expect(calls).toEqual(["two", "one"]);
  });

  it("with a key keep their answers, whatever order the node asks in when it runs again", async () => {
    const { send, calls } = messenger();
    let passes = 0;
    const graph = oneNode(async () => {
      const texts = passes++ % 2 === 0 ? ["one", "two"] : ["two", "one"];
      const outcomes = await Promise.all(texts.map((text) => commit(send, { text }, { key: text })));
      return { log: outcomes.map((outcome, index) => `${texts[index]} got ${outcome.input.text}`).sort() };
    }, [send]);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await approve(cs, await pendingText(cs, threadId, "one"));
    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["one got one", "two got two"]);
    expect(calls).toEqual(["one", "two"]);
    expect((await cs.audit.list(threadId)).map((row) => row.action)).not.toContain("intent.diverged");
  });
});

describe("a key that is used twice in a node", () => {
  it("for the same payload stands for one intent", async () => {
    const { send, calls } = messenger();
    const graph = oneNode(async () => {
      const first = await commit(send, { text: "mail" }, { key: "mail" });
      const again = await commit(send, { text: "mail" }, { key: "mail" });
      return { log: [String(first.intentId === again.intentId)] };
    }, [send]);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["true"]);
    expect(calls).toEqual(["mail"]);
  });

  it.each<[string, (ask: (text: string) => Promise<unknown>) => Promise<unknown>]>([
    ["in series", async (ask) => [await ask("to ann"), await ask("to ben")]],
    ["side by side", (ask) => Promise.all([ask("to ann"), ask("to ben")])],
  ])("for another payload, %s, fails the thread instead of dropping one", async (_how, both) => {
    const { send, calls } = messenger();
    const graph = oneNode(async () => {
      await both((text) => commit(send, { text }, { key: "mail" }));
      return { log: ["both sent"] };
    }, [send]);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await approveAll(cs, threadId);

    await expect(cs.result(threadId)).rejects.toMatchObject({
      code: "THREAD_FAILED",
      facts: { error: "OPTION_INVALID" },
    });
    expect(calls).not.toContain("to ben");
  });
});

describe("waits in a StateGraph", () => {
  it("fan out by Send, and each branch goes on by itself", async () => {
    const messages = messenger();
    const finished: string[] = [];
    const builder = new StateGraph(Log)
      .addNode("branch", async ({ text }: { text: string }) => {
        const { status } = await commit(messages.send, { text });
        finished.push(text);
        return { log: [`${text} ${status}`] };
      })
      .addNode("join", async ({ log }) => ({ log: [`joined ${log.length}`] }))
      .addConditionalEdges(START, () => ["a", "b", "c"].map((text) => new Send("branch", { text })))
      .addEdge("branch", "join")
      .addEdge("join", END);
    const graph = durable("fan-out", builder, messages);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await approve(cs, await pendingText(cs, threadId, "b"));
    await cs.work({ until: "idle" });
    expect(finished).toEqual(["b"]);
    expect(await pendingTexts(cs, threadId)).toEqual(["a", "c"]);
    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["a succeeded", "b succeeded", "c succeeded", "joined 3"]);
    expect(finished.sort()).toEqual(["a", "b", "c"]);
    expect(messages.calls.sort()).toEqual(["a", "b", "c"]);
  });
});

describe("waits in a subgraph", () => {
  it("stand in it side by side, too", async () => {
    const messages = messenger();
    const say = (text: string) => async () => ({
      log: [`${text} ${(await commit(messages.send, { text })).status}`],
    });
    const inner = new StateGraph(Log)
      .addNode("left", say("left"))
      .addNode("right", say("right"))
      .addNode("after", say("after"))
      .addEdge(START, "left")
      .addEdge(START, "right")
      .addEdge(["left", "right"], "after")
      .addEdge("after", END)
      .compile();
    const builder = new StateGraph(Log)
      .addNode("inner", inner)
      .addNode("outer", say("outer"))
      .addEdge(START, "inner")
      .addEdge("inner", "outer")
      .addEdge("outer", END);
    const graph = durable("nested", builder, messages);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    expect(await pendingTexts(cs, threadId)).toEqual(["left", "right"]);
    expect(await dangling(threadId)).toBe(0);
    await approve(cs, await pendingText(cs, threadId, "right"));
    await cs.work({ until: "idle" });
    expect(await pendingTexts(cs, threadId)).toEqual(["left"]);
    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual([
      "left succeeded",
      "right succeeded",
      "after succeeded",
      "outer succeeded",
    ]);
    expect(messages.calls).toEqual(["right", "left", "after", "outer"]);
  });

  it("stand in one that a node invokes by itself", async () => {
    const messages = messenger();
    const inner = new StateGraph(Log)
      .addNode("ask", async () => ({ log: [(await commit(messages.send, { text: "inner" })).status] }))
      .addEdge(START, "ask")
      .compile();
    const graph = oneNode(async () => ({ log: (await inner.invoke({ log: [] })).log }), [messages.send]);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["succeeded"]);
    expect(messages.calls).toEqual(["inner"]);
  });
});

describe("waits in the functional API", () => {
  it("stand in the body of an entrypoint and in tasks side by side", async () => {
    const messages = messenger();
    const ran: string[] = [];
    const say = task("say", async (text: string) => {
      const { status } = await commit(messages.send, { text });
      ran.push(text);
      return `${text} ${status}`;
    });
    const source = ({ checkpointer }: { checkpointer: never }) =>
      entrypoint({ name: "functional", checkpointer }, async (subject: string) => {
        const first = await commit(messages.send, { text: subject });
        const both = await Promise.all([say("left"), say("right")]);
        return { log: [first.status, ...both] };
      });
    const graph = durable("functional", source as never, messages);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, "body");

    expect(await pendingTexts(cs, threadId)).toEqual(["body"]);
    expect(await dangling(threadId)).toBe(0);
    await approve(cs, await pendingText(cs, threadId, "body"));
    await cs.work({ until: "idle" });
    expect(await pendingTexts(cs, threadId)).toEqual(["left", "right"]);
    await approve(cs, await pendingText(cs, threadId, "right"));
    await cs.work({ until: "idle" });
    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["succeeded", "left succeeded", "right succeeded"]);
    expect(ran).toEqual(["right", "left"]);
    expect(messages.calls).toEqual(["body", "right", "left"]);
  });
});

const twoCalls = [
  { id: "call-1", name: "tell", args: { text: "one" } },
  { id: "call-2", name: "tell", args: { text: "two" } },
];
const teller = ({ send }: Messenger) =>
  tool(async ({ text }) => `${text} ${(await commit(send, { text })).status}`, {
    name: "tell",
    description: "Tells somebody something.",
    schema: z.object({ text: z.string() }),
  });
const answers = (output: unknown): string[] =>
  (output as { messages: ToolMessage[] }).messages
    .filter((message) => message.type === "tool")
    .map((message) => `${message.tool_call_id}: ${message.content}`);

describe("waits in tools", () => {
  it("of createAgent are requests of their own, two calls in one message too", async () => {
    const messages = messenger();
    const model = new ScriptedModel([twoCalls, "done"]);
    const graph = durable(
      "agent",
      ({ checkpointer }) => createAgent({ model, tools: [teller(messages)], checkpointer }),
      messages,
    );
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { messages: [new HumanMessage("tell them")] });

    expect(await pendingTexts(cs, threadId)).toEqual(["one", "two"]);
    expect(await dangling(threadId)).toBe(0);
    await cs.reject((await pendingText(cs, threadId, "one")).id, { by: mia, reason: "no" });
    await approveAll(cs, threadId);

    const { status, output } = await cs.result(threadId);
    expect(status).toBe("completed");
    expect(answers(output)).toEqual(["call-1: one rejected", "call-2: two succeeded"]);
    expect(messages.calls).toEqual(["two"]);
    expect(model.calls).toBe(2);
  });
});

describe("waits in the tools of a ToolNode, which runs all calls in one task,", () => {
  it("are told apart by their call ids", async () => {
    const messages = messenger();
    const model = new ScriptedModel([twoCalls, "done"]);
    const builder = new StateGraph(MessagesAnnotation)
      .addNode("model", async (state) => ({ messages: [await model.invoke(state.messages)] }))
      .addNode("tools", new ToolNode([teller(messages)]))
      .addEdge(START, "model")
      .addConditionalEdges("model", ({ messages: all }) => (all.length > 2 ? END : "tools"))
      .addEdge("tools", "model");
    const graph = durable("tool-node", builder, messages);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { messages: [new HumanMessage("tell them")] });

    expect(await pendingTexts(cs, threadId)).toEqual(["one", "two"]);
    expect(await interrupts(threadId)).toEqual([1]);
    await approve(cs, await pendingText(cs, threadId, "two"));
    await cs.work({ until: "idle" });
    await approveAll(cs, threadId);

    expect(answers((await cs.result(threadId)).output)).toEqual(["call-1: one succeeded", "call-2: two succeeded"]);
    expect(messages.calls).toEqual(["two", "one"]);
  });

  it("find their answers although they race", async () => {
    const messages = messenger();
    let passes = 0;
    // On every other pass the first call comes to its commit() last.
    const racing = tool(
      async ({ text }) => {
        if (text === "one" && passes++ % 2 === 1) await new Promise((resolve) => setImmediate(resolve));
        return `${text} got ${(await commit(messages.send, { text })).input.text}`;
      },
      { name: "tell", description: "Tells.", schema: z.object({ text: z.string() }) },
    );
    const model = new ScriptedModel([twoCalls]);
    const builder = new StateGraph(MessagesAnnotation)
      .addNode("model", async (state) => ({ messages: [await model.invoke(state.messages)] }))
      .addNode("tools", new ToolNode([racing]))
      .addEdge(START, "model")
      .addEdge("model", "tools")
      .addEdge("tools", END);
    const graph = durable("racing-tools", builder, messages);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { messages: [new HumanMessage("tell them")] });

    await approveAll(cs, threadId);

    expect(answers((await cs.result(threadId)).output)).toEqual(["call-1: one got one", "call-2: two got two"]);
    expect(messages.calls.sort()).toEqual(["one", "two"]);
    expect((await cs.audit.list(threadId)).map((row) => row.action)).not.toContain("intent.diverged");
  });
});

describe("requestDecision", () => {
  const Price = z.object({ partner: z.string(), price: z.number().int().max(100) });
  const asking = (options: { schema?: typeof Price } = {}) =>
    oneNode(async () => {
      const decision = await requestDecision({
        name: "price.approve",
        payload: { partner: "p-1", price: 50 },
        ...options,
      });
      const reason = decision.status === "rejected" ? ` ${decision.reason}` : "";
      return { log: [`${decision.status} ${decision.payload.price}${reason}`] };
    });

  it("goes on with what was asked, when it is approved", async () => {
    const graph = asking();
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["approved 50"]);
    expect(await cs.intents(threadId)).toMatchObject([{ kind: "decision", status: "succeeded", backend: null }]);
  });

  it("goes on with the reviewer's payload, when it is edited within the schema", async () => {
    const graph = asking({ schema: Price });
    await using cs = await open(graph);
    const { threadId, pending } = await cs.start(graph, { log: [] });

    await cs.edit(String(pending[0]?.id), { price: 60 }, { by: mia, digest: String(pending[0]?.digest) });
    await cs.work({ until: "idle" });

    expect(await logOf(cs, threadId)).toEqual(["approved 60"]);
  });

  it.each([
    ["that the schema refuses", { schema: Price }, { price: 101 }],
    ["where the node gave no schema", {}, { price: 60 }],
  ])("takes no edit %s, and stays open", async (_why, options, amendment) => {
    const graph = asking(options);
    await using cs = await open(graph);
    const { threadId, pending } = await cs.start(graph, { log: [] });

    const edit = cs.edit(String(pending[0]?.id), amendment, { by: mia, digest: String(pending[0]?.digest) });

    await expect(edit).rejects.toMatchObject({ code: "EDIT_INVALID" });
    expect(await cs.pending({ threadId })).toEqual(pending);
  });

  it("never goes on with an edit that the node's schema refuses, whatever JSON Schema can say of it", async () => {
    const got: number[] = [];
    const even = Price.refine(({ price }) => price % 2 === 0);
    const graph = oneNode(async () => {
      const decision = await requestDecision({ name: "even", payload: { partner: "p-1", price: 50 }, schema: even });
      got.push(decision.payload.price);
      return {};
    });
    await using cs = await open(graph);
    const { pending } = await cs.start(graph, { log: [] });

    const edit = cs.edit(String(pending[0]?.id), { price: 61 }, { by: mia, digest: String(pending[0]?.digest) });
    await edit.catch(() => {});
    await cs.work({ until: "idle" });

    expect(got).not.toContain(61);
  });

  it("tells the graph why, when it is rejected", async () => {
    const graph = asking();
    await using cs = await open(graph);
    const { threadId, pending } = await cs.start(graph, { log: [] });

    await cs.reject(String(pending[0]?.id), { by: mia, reason: "too dear" });
    await cs.work({ until: "idle" });

    expect(await logOf(cs, threadId)).toEqual(["rejected 50 too dear"]);
  });

  it("ends as expired when nobody decides in time", async () => {
    const graph = asking();
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await moveClock(pool, { byMs: 48 * 3_600_000 - 60_000 });
    await cs.work({ until: "idle" });
    expect(await cs.pending({ threadId })).toHaveLength(1);
    await moveClock(pool, { byMs: 48 * 3_600_000 + 60_000 });
    await cs.work({ until: "idle" });

    expect(await logOf(cs, threadId)).toEqual(["expired 50"]);
  });
});

const Paid = z.object({ amount: z.number() });
const waitingForPay = (options: { timeoutMs?: number } = {}) =>
  oneNode(async () => {
    const event = await waitForEvent("paid", { schema: Paid, ...options });
    return { log: [event.status === "received" ? `paid ${event.payload.amount}` : event.status] };
  });
const paid = (amount: number, eventId = `e-${amount}`) => ({ name: "paid", eventId, payload: { amount } });

describe("waitForEvent", () => {
  it("goes on when the event comes", async () => {
    const graph = waitingForPay();
    await using cs = await open(graph);
    const { threadId, status } = await cs.start(graph, { log: [] });
    expect(status).toBe("waiting");

    await cs.sendEvent(threadId, { name: "refunded", eventId: "e-1", payload: { amount: 9 } });
    await cs.work({ until: "idle" });
    expect(await cs.drive(threadId)).toBe("waiting");
    expect(await cs.sendEvent(threadId, paid(7))).toBe(true);
    await cs.work({ until: "idle" });

    expect(await logOf(cs, threadId)).toEqual(["paid 7"]);
  });

  it("gets an event that came before it was waited for", async () => {
    const graph = oneNode(async () => {
      await requestDecision({ name: "go", payload: {} });
      const event = await waitForEvent("paid", { schema: Paid });
      return { log: [event.status === "received" ? `paid ${event.payload.amount}` : event.status] };
    });
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await cs.sendEvent(threadId, paid(7));
    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["paid 7"]);
  });

  const twice = (before: () => Promise<unknown> = async () => {}) =>
    oneNode(async () => {
      await before();
      const first = await waitForEvent("paid", { schema: Paid });
      const second = await waitForEvent("paid", { schema: Paid });
      return { log: [first, second].map((event) => JSON.stringify("payload" in event && event.payload)) };
    });

  it("counts an event that is delivered twice once", async () => {
    const graph = twice();
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    expect(await cs.sendEvent(threadId, paid(1))).toBe(true);
    expect(await cs.sendEvent(threadId, paid(1))).toBe(false);
    await cs.work({ until: "idle" });
    expect(await cs.drive(threadId)).toBe("waiting");
    expect(await cs.sendEvent(threadId, paid(1))).toBe(false);
    expect(await cs.sendEvent(threadId, paid(2))).toBe(true);
    await cs.work({ until: "idle" });

    expect(await logOf(cs, threadId)).toEqual(['{"amount":1}', '{"amount":2}']);
  });

  it("gives two waits of one name two events in the order in which they came", async () => {
    const graph = twice(() => requestDecision({ name: "go", payload: {} }));
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    // Neither their ids nor what they carry are in this order.
    await cs.sendEvent(threadId, paid(9, "z"));
    await cs.sendEvent(threadId, paid(1, "a"));
    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(['{"amount":9}', '{"amount":1}']);
  });
});

describe("waitForEvent, beside others or in vain,", () => {
  it("gives waits side by side an event each", async () => {
    const graph = oneNode(async () => {
      const both = await Promise.all([waitForEvent("paid", { schema: Paid }), waitForEvent("paid", { schema: Paid })]);
      return { log: both.map((event) => JSON.stringify("payload" in event && event.payload)).sort() };
    });
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    for (const amount of [1, 2]) await cs.sendEvent(threadId, paid(amount));
    await cs.work({ until: "idle" });

    expect(await logOf(cs, threadId)).toEqual(['{"amount":1}', '{"amount":2}']);
  });

  it("ends as expired when nothing comes in time", async () => {
    const graph = waitingForPay({ timeoutMs: 60_000 });
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await cs.work({ until: "idle" });
    expect(await cs.drive(threadId)).toBe("waiting");
    await moveClock(pool, { byMs: 61_000 });
    await cs.work({ until: "idle" });

    expect(await logOf(cs, threadId)).toEqual(["expired"]);
  });

  it("keeps an event that does not fit the schema for a retry after the mend", async () => {
    const schema = { current: Paid as z.ZodType<{ amount: unknown }> };
    const graph = oneNode(async () => {
      const event = await waitForEvent("paid", { schema: schema.current });
      return { log: [event.status === "received" ? `paid ${event.payload.amount}` : event.status] };
    });
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });
    await cs.sendEvent(threadId, { name: "paid", eventId: "e-1", payload: { amount: "seven" } });
    await cs.work({ until: "idle" });
    await expect(cs.result(threadId)).rejects.toMatchObject({
      code: "THREAD_FAILED",
      facts: { error: "INPUT_INVALID" },
    });

    schema.current = z.object({ amount: z.string() });
    await cs.retry(threadId);
    await cs.work({ until: "idle" });

    expect(await logOf(cs, threadId)).toEqual(["paid seven"]);
  });
});

describe("sleep", () => {
  it("goes on when the time has passed on the database's clock, not before", async () => {
    const graph = oneNode(async () => {
      await sleep(3_600_000);
      return { log: ["awake"] };
    });
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await moveClock(pool, { byMs: 3_500_000 });
    await cs.work({ until: "idle" });
    expect(await cs.drive(threadId)).toBe("waiting");
    await moveClock(pool, { byMs: 3_700_000 });
    await cs.work({ until: "idle" });

    expect(await logOf(cs, threadId)).toEqual(["awake"]);
  });

  it.each([-1, Number.NaN, Number.POSITIVE_INFINITY, 11 * 365 * 24 * 3_600_000])(
    "refuses to sleep for %d",
    async (ms) => {
      const graph = oneNode(async () => {
        await sleep(ms);
        return {};
      });
      await using cs = await open(graph);

      const run = await cs.start(graph, { log: [] });

      expect(run).toMatchObject({ status: "failed", error: { code: "OPTION_INVALID" } });
      expect(await cs.intents(run.threadId)).toEqual([]);
    },
  );
});

describe("commitAll", () => {
  const undone: string[] = [];
  const note = scribe({
    compensate: async ({ input, reason }) => {
      undone.push(`${input.text} ${reason}`);
    },
  });
  const mail = messenger();
  const together = () =>
    oneNode(async () => {
      const outcomes = await commitAll([
        { commitment: note.send, input: { text: "note" } },
        { commitment: mail.send, input: { text: "mail" } },
        { commitment: mail.send, input: { text: "copy" } },
      ]);
      return { log: outcomes.map((outcome) => `${outcome.input.text} ${outcome.status}`) };
    }, [note.send, mail.send]);

  it("records all in one transaction and goes on when all have ended", async () => {
    const graph = together();
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    expect(await transactionsOf(threadId)).toHaveLength(1);
    expect(new Set((await cs.intents(threadId)).map((intent) => intent.groupId)).size).toBe(1);
    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["note succeeded", "mail succeeded", "copy succeeded"]);
  });

  it("leaves nothing runnable when one is rejected, and undoes the one that ran already", async () => {
    const graph = together();
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });
    await cs.work({ until: "idle" });
    mail.calls.length = 0;
    await approve(cs, await pendingText(cs, threadId, "copy"));

    const statuses = async () => {
      const effects = (await cs.intents(threadId)).filter((intent) => intent.kind === "effect");
      return effects.map((effect) => `${textOf(effect)} ${effect.status}`).sort();
    };
    await cs.reject((await pendingText(cs, threadId, "mail")).id, { by: mia, reason: "no" });
    expect(await statuses()).toEqual(["copy cancelled", "mail rejected", "note succeeded"]);
    await cs.work({ until: "idle" });

    expect(await statuses()).toEqual(["copy cancelled", "mail rejected", "note compensated"]);
    expect(mail.calls).toEqual([]);
    expect(undone).toEqual(["note rejected"]);
    const { output } = await cs.result<{ log: string[] }>(threadId);
    expect(output?.log).toEqual(["note succeeded", "mail rejected", "copy cancelled"]);
  });

  it("lets one that runs end when another is rejected, and does not try it again", async () => {
    const running = gate();
    let calls = 0;
    let aborted = false;
    const slow = scribe({
      retry: { initialIntervalMs: 0 },
      execute: async (_input, { signal }) => {
        calls++;
        await running.pass();
        aborted = signal.aborted;
        throw new Error("no answer");
      },
    });
    const graph = oneNode(async () => {
      const outcomes = await commitAll([
        { commitment: slow.send, input: { text: "slow" } },
        { commitment: mail.send, input: { text: "mail" } },
      ]);
      return { log: outcomes.map((outcome) => `${outcome.input.text} ${outcome.status}`) };
    }, [slow.send, mail.send]);
    await using cs = await open(graph);
    const stop = new AbortController();
    const working = cs.work({ signal: stop.signal });
    const { threadId } = await cs.start(graph, { log: [] });
    await running.reached();
    await cs.reject((await pendingText(cs, threadId, "mail")).id, { by: mia });
    running.open();

    expect(await logOf(cs, threadId)).toEqual(["slow cancelled", "mail rejected"]);
    expect([calls, aborted]).toEqual([1, false]);
    stop.abort();
    await working;
  });

  it("ends its thread alike, whether the undoing is over before the graph or after it", async () => {
    const endOf = async (more: () => Promise<unknown>) => {
      const graph = oneNode(async () => {
        await commitAll([
          { commitment: note.send, input: { text: "note" } },
          { commitment: mail.send, input: { text: "mail" } },
        ]);
        await more();
        return {};
      }, [note.send, mail.send]);
      await using cs = await open(graph);
      const { threadId } = await cs.start(graph, { log: [] });
      await cs.work({ until: "idle" });
      await cs.reject((await pendingText(cs, threadId, "mail")).id, { by: mia, reason: "no" });
      await approveAll(cs, threadId);
      return (await cs.result(threadId)).status;
    };

    const before = await endOf(() => requestDecision({ name: "go", payload: {} }));
    const after = await endOf(async () => {});

    expect(after).toBe(before);
  });

  it("records nothing of the others when one input does not fit", async () => {
    const graph = oneNode(async () => {
      await commitAll([
        { commitment: mail.send, input: { text: "fine" } },
        { commitment: mail.send, input: { text: 7 as never } },
      ]);
      return {};
    }, [mail.send]);
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    expect(run).toMatchObject({ status: "failed", error: { code: "INPUT_INVALID" } });
    expect(await cs.intents(run.threadId)).toEqual([]);
  });
});

/** Which writes of its task an intent shares its transaction with. */
async function recordedBeside(threadId: string): Promise<string[]> {
  const { rows } = await pool.query(
    `select w.channel from countersign.execution_intents i
     join countersign.checkpoint_writes w on w.thread_id = i.thread_id and w.task_id = i.task_id and w.xmin = i.xmin
     where i.thread_id = $1 order by 1`,
    [threadId],
  );
  return rows.map((row) => row.channel);
}

describe("commit() with wait: false", () => {
  it("goes on at once, and records with the node's own writes", async () => {
    const { send, calls } = scribe();
    const graph = oneNode(async () => {
      const { status } = await commit(send, { text: "note" }, { wait: false });
      return { log: [status] };
    }, [send]);
    await using cs = await open(graph);

    const { threadId, status } = await cs.start(graph, { log: [] });

    expect(status).toBe("completed");
    expect(await recordedBeside(threadId)).toContain("log");
    expect(await logOf(cs, threadId)).toEqual(["recorded"]);
    await cs.work({ until: "idle" });
    expect(calls).toEqual(["note"]);
  });

  it("records for a node that writes nothing, too", async () => {
    const messages = scribe();
    const builder = new StateGraph(Log)
      .addNode("silent", async () => {
        await commit(messages.send, { text: "note" }, { wait: false });
      })
      .addEdge(START, "silent")
      .addEdge("silent", END);
    const graph = durable("silent", builder as never, messages);
    await using cs = await open(graph);

    const { threadId, status } = await cs.start(graph, { log: [] });
    await cs.work({ until: "idle" });

    expect(status).toBe("completed");
    expect(await cs.intents(threadId)).toMatchObject([{ status: "succeeded", waits: false }]);
    expect(messages.calls).toEqual(["note"]);
  });

  it("is decided and carried out after its thread has ended", async () => {
    const { send, calls } = messenger();
    const graph = oneNode(async () => {
      await commit(send, { text: "mail" }, { wait: false });
      return {};
    }, [send]);
    await using cs = await open(graph);
    const { threadId, status } = await cs.start(graph, { log: [] });
    await cs.work({ until: "idle" });
    expect([status, calls]).toEqual(["completed", []]);

    await approveAll(cs, threadId);

    expect(calls).toEqual(["mail"]);
    expect((await cs.result(threadId)).status).toBe("completed");
  });
});

describe("commit() with wait: false, beside a wait,", () => {
  it("before it in the same node is recorded with it, once, and does not hold it up", async () => {
    const notes = scribe();
    const mails = messenger();
    const graph = oneNode(async () => {
      await commit(notes.send, { text: "note" }, { wait: false });
      const { status } = await commit(mails.send, { text: "mail" });
      return { log: [status] };
    }, [notes.send, mails.send]);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    expect(await transactionsOf(threadId)).toHaveLength(1);
    expect(await recordedBeside(threadId)).toEqual(["__interrupt__", "__interrupt__"]);
    await cs.work({ until: "idle" });
    expect(notes.calls).toEqual(["note"]);
    expect(await pendingTexts(cs, threadId)).toEqual(["mail"]);
    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["succeeded"]);
    expect(await cs.intents(threadId)).toHaveLength(2);
    expect(notes.calls).toEqual(["note"]);
  });

  it("after it in the same node is recorded with the writes of the pass that ended it", async () => {
    const notes = scribe();
    const mails = messenger();
    const graph = oneNode(async () => {
      const { status } = await commit(mails.send, { text: "mail" });
      await commit(notes.send, { text: `mail ${status}` }, { wait: false });
      return { log: [status] };
    }, [notes.send, mails.send]);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    expect(await cs.intents(threadId)).toHaveLength(1);
    await approveAll(cs, threadId);
    await cs.work({ until: "idle" });

    expect(await cs.intents(threadId)).toHaveLength(2);
    expect(notes.calls).toEqual(["mail succeeded"]);
  });
});

/** LangGraph's own retries, without a pause. */
const RETRY = { maxAttempts: 3, initialInterval: 1, jitter: false, logWarning: false };

describe("commit() with wait: false, in a node that fails or runs again,", () => {
  it("records nothing when the node throws, and once when a retry by hand succeeds", async () => {
    const { send, calls } = scribe();
    let broken = true;
    const graph = oneNode(async () => {
      await commit(send, { text: "note" }, { wait: false });
      if (broken) throw new Error("no luck");
      return {};
    }, [send]);
    await using cs = await open(graph);

    const { threadId, status } = await cs.start(graph, { log: [] });
    await cs.work({ until: "idle" });
    expect([status, await cs.intents(threadId)]).toEqual(["failed", []]);
    broken = false;
    await cs.retry(threadId);
    await cs.work({ until: "idle" });

    expect((await cs.result(threadId)).status).toBe("completed");
    expect(calls).toEqual(["note"]);
  });

  it("records what the attempt that succeeded asked for, once, over LangGraph's own retries", async () => {
    const messages = scribe();
    let attempts = 0;
    const builder = new StateGraph(Log)
      .addNode(
        "flaky",
        async () => {
          attempts++;
          await commit(messages.send, { text: `note ${attempts}` }, { wait: false });
          if (attempts === 1) await commit(messages.send, { text: "of the first attempt only" }, { wait: false });
          if (attempts < 3) throw new Error("no luck");
          return {};
        },
        { retryPolicy: RETRY },
      )
      .addEdge(START, "flaky")
      .addEdge("flaky", END);
    const graph = durable("flaky", builder, messages);
    await using cs = await open(graph);

    const { threadId, status } = await cs.start(graph, { log: [] });
    await cs.work({ until: "idle" });

    expect([status, attempts]).toEqual(["completed", 3]);
    expect(await cs.intents(threadId)).toHaveLength(1);
    expect(messages.calls).toEqual(["note 3"]);
  });

  it("records once over the retries in a tool or a RunnableLambda, too, and beside a wait", async () => {
    const messages = scribe();
    const note = tool(async ({ text }) => (await commit(messages.send, { text }, { wait: false })).status, {
      name: "note",
      description: "Takes a note.",
      schema: z.object({ text: z.string() }),
    });
    const decide = RunnableLambda.from(() => requestDecision({ name: "go", payload: {} }));
    let attempts = 0;
    const builder = new StateGraph(Log)
      .addNode(
        "flaky",
        async () => {
          await note.invoke({ text: "note" });
          if (++attempts < 3) throw new Error("no luck");
          return { log: [(await decide.invoke("")).status] };
        },
        { retryPolicy: RETRY },
      )
      .addEdge(START, "flaky")
      .addEdge("flaky", END);
    const graph = durable("flaky-tool", builder, messages);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["approved"]);
    expect(await cs.intents(threadId)).toHaveLength(2);
    expect(messages.calls).toEqual(["note"]);
  });
});

describe("commit() with wait: false, in the functional API,", () => {
  it("in a task() of an entrypoint is recorded once, although the body runs again", async () => {
    const notes = scribe();
    const file = task("file", async (text: string) => (await commit(notes.send, { text }, { wait: false })).status);
    const source = ({ checkpointer }: { checkpointer: never }) =>
      entrypoint({ name: "filing", checkpointer }, async () => {
        const status = await file("note");
        const { status: decided } = await requestDecision({ name: "go", payload: {} });
        return { log: [status, decided] };
      });
    const graph = durable("filing", source as never, notes);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, "");

    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["recorded", "approved"]);
    expect(notes.calls).toEqual(["note"]);
  });
});
