import { Command, END, START, StateGraph } from "@langchain/langgraph";
import { WRITES_IDX_MAP } from "@langchain/langgraph-checkpoint";
import { describe, expect, it } from "vitest";
import {
  DRIVE_KEY,
  ERROR_CHANNEL,
  ERROR_SOURCE_CHANNEL,
  INTENT_CHANNEL,
  INTERRUPT_CHANNEL,
  isWait,
  waitInterrupt,
} from "../../src/langgraph.ts";
import { assertDurabilityHonoured } from "../../src/runtime/durability-check.ts";
import { here, type Node, NotingSaver, State, single, sync } from "../support/noting-saver.ts";

/* What the saver takes for granted of the calls that LangGraph makes to it (T15). See langgraph-contract.test.ts. */

describe("a wait", () => {
  it("reaches putWrites and the caller with its own id and value", async () => {
    const saver = new NotingSaver();
    const graph = single(() => {
      throw waitInterrupt("w-1", { intents: ["w-1"] });
    }).compile({ checkpointer: saver });
    const expected = { id: "w-1", value: { intents: ["w-1"] } };
    expect(await graph.invoke({}, sync())).toMatchObject({ __interrupt__: [expected] });
    expect(saver.on(INTERRUPT_CHANNEL)).toMatchObject([{ value: expected }]);
  });

  it("is recognised in a catch block, and nothing else is", async () => {
    const caught: boolean[] = [];
    const graph = single(() => {
      for (const error of [waitInterrupt("w-1", {}), new Error("broken"), "text", undefined])
        caught.push(isWait(error));
      return {};
    }).compile();
    await graph.invoke({});
    expect(caught).toEqual([true, false, false, false]);
  });

  it("reads no resume value: not even one that somebody stored", async () => {
    let passes = 0;
    const graph = single(() => {
      passes++;
      throw waitInterrupt("w-1", {});
    }).compile({ checkpointer: new NotingSaver() });
    await graph.invoke({}, sync());
    expect(await graph.invoke(new Command({ resume: "approved" }), sync())).toHaveProperty("__interrupt__");
    expect(passes).toBe(2);
  });

  it("inside a subgraph is written by the inner task and by the parent's, with one id", async () => {
    const saver = new NotingSaver();
    const inner = single(() => {
      throw waitInterrupt("w-1", {});
    }).compile();
    const graph = new StateGraph(State)
      .addNode("outer", inner)
      .addEdge(START, "outer")
      .addEdge("outer", END)
      .compile({ checkpointer: saver });
    await graph.invoke({}, sync());
    const written = saver.on(INTERRUPT_CHANNEL);
    expect(written).toMatchObject([{ value: { id: "w-1" } }, { value: { id: "w-1" } }]);
    expect(new Set(written.map(({ taskId }) => taskId)).size).toBe(2);
  });
});

describe("a task that failed", () => {
  it("reaches putWrites with its error last, after what it had written", async () => {
    const saver = new NotingSaver();
    const graph = new StateGraph(State)
      .addNode("node", () => ({ step: 1 }))
      .addEdge(START, "node")
      .addConditionalEdges("node", () => {
        throw new TypeError("no way on");
      })
      .compile({ checkpointer: saver });
    await expect(graph.invoke({}, sync())).rejects.toThrow("no way on");
    const last = saver.putWritesCalls.at(-1)?.writes ?? [];
    expect(last).toEqual([
      ["step", 1],
      [ERROR_CHANNEL, { name: "TypeError", message: "no way on" }],
    ]);
  });

  it("names its node where an error handler takes over", async () => {
    const saver = new NotingSaver();
    const graph = single(
      () => {
        throw new Error("broken");
      },
      { errorHandler: () => ({ step: -1 }) },
    ).compile({ checkpointer: saver });
    expect(await graph.invoke({}, sync())).toMatchObject({ step: -1 });
    expect(saver.on(ERROR_CHANNEL)).toMatchObject([{ value: { message: "broken" } }]);
    expect(saver.on(ERROR_SOURCE_CHANNEL)).toMatchObject([{ value: "node" }]);
  });

  it("is called ParentCommand where it only jumped to its parent graph", async () => {
    const saver = new NotingSaver();
    const inner = single(() => new Command({ graph: Command.PARENT, update: { step: 1 } })).compile();
    const graph = new StateGraph(State)
      .addNode("outer", inner)
      .addEdge(START, "outer")
      .compile({ checkpointer: saver });
    await graph.invoke({}, sync());
    expect(saver.on(ERROR_CHANNEL)).toMatchObject([{ value: { name: "ParentCommand" } }]);
  });

  it("has special channels with a place of their own; ours is an ordinary one", () => {
    expect(WRITES_IDX_MAP[ERROR_CHANNEL]).toBeLessThan(0);
    expect(WRITES_IDX_MAP[INTERRUPT_CHANNEL]).toBeLessThan(0);
    expect(WRITES_IDX_MAP).not.toHaveProperty(ERROR_SOURCE_CHANNEL);
    expect(WRITES_IDX_MAP).not.toHaveProperty(INTENT_CHANNEL);
  });
});

describe("what a run shares with its saver", () => {
  /** A parent, and in it a subgraph with a node. */
  function nested(saver: NotingSaver, node: Node, innerOptions: object = {}) {
    return new StateGraph(State)
      .addNode("outer", single(node).compile(innerOptions))
      .addEdge(START, "outer")
      .addEdge("outer", END)
      .compile({ checkpointer: saver });
  }

  it("is our key in configurable: it reaches nodes, put and putWrites, in subgraphs as well", async () => {
    const saver = new NotingSaver();
    const drive = { of: "this run" };
    let inNode: unknown;
    const graph = nested(saver, () => {
      inNode = here().configurable[DRIVE_KEY];
      return { step: 1 };
    });
    await graph.invoke({}, sync({ [DRIVE_KEY]: drive }));
    expect(inNode).toBe(drive);
    const configs = [...saver.putCalls, ...saver.putWritesCalls].map(({ config }) => config);
    expect(new Set(configs.map((config) => config.configurable?.checkpoint_ns)).size).toBe(2);
    for (const config of configs) expect(config.configurable?.[DRIVE_KEY]).toBe(drive);
  });

  it("is a control of its own for each run, the same one for all calls of the run", async () => {
    const saver = new NotingSaver();
    const graph = nested(saver, () => ({ step: 1 }));
    const controls = async (): Promise<Set<unknown>> => {
      saver.putCalls.length = saver.putWritesCalls.length = 0;
      await graph.invoke({}, sync());
      return new Set([...saver.putCalls, ...saver.putWritesCalls].map(({ config }) => Reflect.get(config, "control")));
    };
    const [first, second] = [await controls(), await controls()];
    expect([first.size, second.size]).toEqual([1, 1]);
    expect([...first][0]).toBeInstanceOf(Object);
    expect([...first][0]).not.toBe([...second][0]);
  });

  it("is the source of a checkpoint: 'loop' for a step that ended, on the graph and inside it", async () => {
    const saver = new NotingSaver();
    const graph = nested(saver, () => ({ step: 1 }));
    await graph.invoke({}, sync());
    await graph.updateState({ configurable: { thread_id: "t" } }, { step: 2 });
    const sources = saver.putCalls
      .filter(({ config }) => !config.configurable?.checkpoint_ns)
      .map(({ metadata }) => metadata.source);
    expect(sources).toEqual(["input", "loop", "loop", "update"]);
  });

  it("is the checkpoint that a task stands on, except in a subgraph compiled with checkpointer: false", async () => {
    const saver = new NotingSaver();
    const standing: string[] = [];
    const node = () => {
      const { checkpointNs, configurable } = here();
      const graphNs = checkpointNs.split("|").slice(0, -1).join("|");
      standing.push((configurable.checkpoint_map as Record<string, string>)[graphNs] ?? "nowhere");
      return {};
    };
    await single(node).compile({ checkpointer: saver }).invoke({}, sync());
    await nested(saver, node).invoke({}, sync());
    await nested(saver, node, { checkpointer: true }).invoke({}, sync());
    await nested(saver, node, { checkpointer: false }).invoke({}, sync());
    const persisted = new Set(saver.putCalls.map(({ checkpoint }) => checkpoint.id));
    expect(standing.map((id) => persisted.has(id))).toEqual([true, true, true, false]);
  });
});

describe("sync", () => {
  it("awaits the checkpointer before the next step starts", async () => {
    await expect(assertDurabilityHonoured()).resolves.toBeUndefined();
  });
});
