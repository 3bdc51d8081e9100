import { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import type { CallbackManager } from "@langchain/core/callbacks/manager";
import { AIMessage, HumanMessage } from "@langchain/core/messages";
import { AsyncLocalStorageProviderSingleton } from "@langchain/core/singletons";
import { tool } from "@langchain/core/tools";
import { END, entrypoint, MessagesAnnotation, START, StateGraph, task } from "@langchain/langgraph";
import { ToolNode } from "@langchain/langgraph/prebuilt";
import { createAgent, fakeModel } from "langchain";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import {
  INTENT_CHANNEL,
  INTERRUPT_CHANNEL,
  type RunningTask,
  runningTask,
  waitInterrupt,
  writeWithTask,
} from "../../src/langgraph.ts";
import { here, NotingSaver, retryPolicy, single, sync } from "../support/noting-saver.ts";

/*
 * What src/langgraph.ts takes for granted and LangGraph's public types do not promise (T15), held
 * against the installed version: here what a running task can know of itself, and what it can write.
 * A new LangGraph that breaks one of these breaks it here. See langgraph-contract-saver.test.ts.
 */

describe("the running task", () => {
  it("is known inside a node by the id under which its writes reach putWrites, and nowhere else", async () => {
    const saver = new NotingSaver();
    let seen: RunningTask | undefined;
    let info: { taskId?: string; checkpointId?: string } | undefined;
    const graph = single((_state, config) => {
      seen = runningTask();
      info = (config as { executionInfo?: object }).executionInfo;
      return { step: 1 };
    }).compile({ checkpointer: saver });
    await graph.invoke({}, sync());
    expect(runningTask()).toBeUndefined();
    expect(seen?.threadId).toBe("t");
    expect(saver.on("step")).toEqual([{ taskId: seen?.taskId, value: 1 }]);
    expect(seen?.checkpointNs).toBe(`node:${seen?.taskId}`);
    expect(info).toMatchObject({ taskId: seen?.taskId, checkpointId: seen?.checkpointId });
    expect(saver.putCalls.map(({ checkpoint }) => checkpoint.id)).toContain(seen?.checkpointId);
  });

  it("keeps its id over a wait, a failure and a retry of the run", async () => {
    const ids: string[] = [];
    const graph = single(() => {
      ids.push(here().taskId);
      if (ids.length === 1) throw waitInterrupt("w-1", {});
      if (ids.length === 2) throw new Error("broken");
      return { step: 1 };
    }).compile({ checkpointer: new NotingSaver() });
    await graph.invoke({}, sync());
    await expect(graph.invoke(null, sync())).rejects.toThrow("broken");
    await expect(graph.invoke(null, sync())).resolves.toBeDefined();
    expect(new Set(ids).size).toBe(1);
  });

  it("gets another id on a fork", async () => {
    const ids: string[] = [];
    const graph = single(() => {
      ids.push(here().taskId);
      return { step: 1 };
    }).compile({ checkpointer: new NotingSaver() });
    await graph.invoke({}, sync());
    for await (const state of graph.getStateHistory(sync())) {
      if (state.next[0] === "node") await graph.invoke(null, { ...state.config, durability: "sync" });
    }
    expect(ids).toHaveLength(2);
    expect(new Set(ids).size).toBe(2);
  });

  it("runs a retried node's attempts under one id, and counts them", async () => {
    const seen: { id: string; attempt: unknown }[] = [];
    const graph = single(
      (_state, config) => {
        const { nodeAttempt } = Reflect.get(config, "executionInfo");
        if (seen.push({ id: here().taskId, attempt: nodeAttempt }) < 3) throw new Error("again");
        return { step: 1 };
      },
      { retryPolicy },
    ).compile({ checkpointer: new NotingSaver() });
    await graph.invoke({}, sync());
    expect(seen.map(({ attempt }) => attempt)).toEqual([1, 2, 3]);
    expect(new Set(seen.map(({ id }) => id)).size).toBe(1);
  });

  it("is one of its own in each task() of the functional API", async () => {
    const saver = new NotingSaver();
    const ids: string[] = [];
    const inner = task("inner", async (n: number) => {
      ids.push(here().taskId);
      return n;
    });
    const graph = entrypoint({ name: "outer", checkpointer: saver }, async (n: number) => {
      ids.push(here().taskId);
      return (await inner(n)) + (await inner(n));
    });
    expect(await graph.invoke(2, sync())).toBe(4);
    expect(new Set(ids).size).toBe(3);
    expect(saver.putWritesCalls.map(({ taskId }) => taskId)).toEqual(expect.arrayContaining(ids));
  });
});

/** Notes which runs LangChain tells its callback handlers of. */
class NotingHandler extends BaseCallbackHandler {
  readonly name = "noting";
  override awaitHandlers = true;
  readonly toolCalls = new Map<string, string | undefined>();
  readonly attempts: string[] = [];

  // At run time the fourth argument is the parent run's id, the fifth the tags.
  override handleChainStart(_chain: unknown, _inputs: unknown, runId: string, _parent?: string, tags?: string[]): void {
    if (tags?.some((tag) => tag.startsWith("graph:step:"))) this.attempts.push(runId);
  }

  override handleToolStart(_tool: unknown, _input: string, runId: string, ...rest: unknown[]): void {
    this.toolCalls.set(runId, rest[4] as string | undefined);
  }
}

describe("code inside tool()", () => {
  const handler = new NotingHandler();
  const seen: { own: unknown; hidden: unknown; told: unknown; taskId: string }[] = [];
  const look = tool(
    (_input, config) => {
      const around = AsyncLocalStorageProviderSingleton.getRunnableConfig();
      const { callbacks } = around as { callbacks: CallbackManager };
      seen.push({
        own: config.toolCall?.id,
        hidden: Reflect.get(around ?? {}, "toolCall") ?? Reflect.get(around ?? {}, "executionInfo"),
        told: handler.toolCalls.get(callbacks.getParentRunId() ?? ""),
        taskId: here().taskId,
      });
      return "seen";
    },
    { name: "look", description: "Looks.", schema: z.object({}) },
  );
  const calls = ["call-1", "call-2"].map((id) => ({ name: "look", args: {}, id, type: "tool_call" as const }));
  const told = () => seen.map((each) => each.told).sort();

  it("of a ToolNode shares its task with the other calls; only its parent run leads to the call's id", async () => {
    seen.length = 0;
    const graph = new StateGraph(MessagesAnnotation)
      .addNode("tools", new ToolNode([look]))
      .addEdge(START, "tools")
      .addEdge("tools", END)
      .compile({ checkpointer: new NotingSaver() });
    const messages = [new AIMessage({ content: "", tool_calls: calls })];
    await graph.invoke({ messages }, { ...sync(), callbacks: [handler] });
    expect(new Set(seen.map(({ taskId }) => taskId)).size).toBe(1);
    expect(told()).toEqual(["call-1", "call-2"]);
    for (const each of seen) expect(each).toMatchObject({ told: each.own, hidden: undefined });
  });

  it("of createAgent has a task of its own for each call, and finds the call's id the same way", async () => {
    seen.length = 0;
    const model = fakeModel().respondWithTools(calls).respond(new AIMessage("done"));
    const agent = createAgent({ model, tools: [look], checkpointer: new NotingSaver() });
    await agent.invoke({ messages: [new HumanMessage("look twice")] }, { ...sync(), callbacks: [handler] });
    expect(new Set(seen.map(({ taskId }) => taskId)).size).toBe(2);
    expect(told()).toEqual(["call-1", "call-2"]);
  });

  it("is inside a run of its own for each attempt of a task", async () => {
    const attempts = new NotingHandler();
    let tries = 0;
    const graph = single(
      () => {
        if (++tries < 3) throw new Error("again");
        return { step: 1 };
      },
      { retryPolicy },
    ).compile({ checkpointer: new NotingSaver() });
    await graph.invoke({}, { ...sync(), callbacks: [attempts] });
    // `__start__`, and the three attempts.
    expect(new Set(attempts.attempts).size).toBe(1 + 3);
  });
});

describe("a write to a channel that no graph has", () => {
  it("arrives in the putWrites of its own task, beside the node's writes, and in no checkpoint", async () => {
    const saver = new NotingSaver();
    const graph = single(() => {
      writeWithTask(here(), INTENT_CHANNEL, "i-1");
      return { step: 1 };
    }).compile({ checkpointer: saver });
    expect(await graph.invoke({}, sync())).toEqual({ step: 1 });
    const withIntent = saver.putWritesCalls.filter(({ writes }) => writes.some(([name]) => name === INTENT_CHANNEL));
    expect(withIntent).toHaveLength(1);
    expect(withIntent[0]?.writes.map(([name]) => name).sort()).toEqual([INTENT_CHANNEL, "step"].sort());
    for (const { checkpoint } of saver.putCalls) {
      expect(Object.keys(checkpoint.channel_versions)).not.toContain(INTENT_CHANNEL);
      expect(Object.keys(checkpoint.channel_values)).not.toContain(INTENT_CHANNEL);
    }
  });

  it("arrives also where the node itself writes nothing", async () => {
    const saver = new NotingSaver();
    const graph = single(() => {
      writeWithTask(here(), INTENT_CHANNEL, "i-1");
      return {};
    }).compile({ checkpointer: saver });
    await graph.invoke({}, sync());
    expect(saver.on(INTENT_CHANNEL)).toHaveLength(1);
  });

  it("is dropped with an attempt that is retried", async () => {
    const saver = new NotingSaver();
    let attempt = 0;
    const graph = single(
      () => {
        writeWithTask(here(), INTENT_CHANNEL, `of attempt ${++attempt}`);
        if (attempt === 1) throw new Error("again");
        return { step: 1 };
      },
      { retryPolicy },
    ).compile({ checkpointer: saver });
    await graph.invoke({}, sync());
    expect(saver.on(INTENT_CHANNEL).map(({ value }) => value)).toEqual(["of attempt 2"]);
  });

  it("is dropped when the task waits: what must be kept travels in the wait itself", async () => {
    const saver = new NotingSaver();
    const graph = single(() => {
      writeWithTask(here(), INTENT_CHANNEL, "i-1");
      throw waitInterrupt("w-1", { intents: ["w-1", "i-1"] });
    }).compile({ checkpointer: saver });
    await graph.invoke({}, sync());
    expect(saver.on(INTENT_CHANNEL)).toEqual([]);
    expect(saver.on(INTERRUPT_CHANNEL)).toHaveLength(1);
  });
});
