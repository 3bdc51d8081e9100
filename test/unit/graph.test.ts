import { Annotation, END, entrypoint, interrupt, MemorySaver, START, StateGraph } from "@langchain/langgraph";
import { InMemoryCache } from "@langchain/langgraph-checkpoint";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { assertRunnable, type GraphDefinition, type GraphSource } from "../../src/graph.ts";
import { type AnyGraph, defineCommitment, defineGraph } from "../../src/index.ts";

const State = Annotation.Root({ value: Annotation<number> });
const builder = () =>
  new StateGraph(State)
    .addNode("step", () => ({ value: 1 }))
    .addEdge(START, "step")
    .addEdge("step", END);

const pay = (version = 1) =>
  defineCommitment({
    name: "payment.send",
    version,
    sideEffectClass: "external_commitment",
    approvalClass: "A3",
    reversibilityClass: "R3",
    sensitivityClass: "S3",
    input: z.object({}),
    output: z.object({}),
    execute: async () => ({}),
  });

/** As a JavaScript caller may declare it, past the types. */
const declare = (changes: Record<string, unknown>): AnyGraph =>
  defineGraph({
    name: "payer",
    version: 1,
    durability: "durable",
    graph: builder(),
    ...changes,
  } as unknown as GraphDefinition<GraphSource>);

const refusal = (said: RegExp) =>
  expect.objectContaining({ code: "DEFINITION_INVALID", message: expect.stringMatching(said) });

describe("defineGraph", () => {
  it("fills in what is left out", () => {
    expect(declare({})).toMatchObject({
      name: "payer",
      version: 1,
      durability: "durable",
      lossWindow: null,
      commitments: [],
      onReject: null,
      onFailure: null,
      actorType: "automated_workflow",
    });
  });

  it("keeps what is declared", () => {
    const commitments = [pay(1), pay(2)];
    const declared = { commitments, onReject: "compensate", onFailure: "compensate", actorType: "recommender_agent" };
    expect(declare(declared)).toMatchObject(declared);
    expect(declare({ durability: "async", lossWindow: "the last minute of research" }).lossWindow).toBe(
      "the last minute of research",
    );
  });

  it("leaves nothing to change afterwards", () => {
    const graph = declare({ commitments: [] }) as { durability: string };
    expect(() => {
      graph.durability = "exit";
    }).toThrow(TypeError);
  });

  it("takes a factory, which is called when the graph is registered", () => {
    const factory = () => {
      throw new Error("not yet");
    };
    expect(declare({ graph: factory }).source).toBe(factory);
  });

  it("takes a subgraph that inherits the checkpointer, at any depth", () => {
    const inner = new StateGraph(State).addNode("inner", builder().compile()).addEdge(START, "inner").compile();
    const outer = new StateGraph(State).addNode("outer", inner).addEdge(START, "outer");
    expect(() => declare({ graph: outer })).not.toThrow();
  });
});

describe("defineGraph refuses", () => {
  it.each(["", "Payer", "pay er", "-payer", undefined, 7])("the name %o", (name) => {
    expect(() => declare({ name })).toThrow(refusal(/no proper name/));
  });

  it.each([0, 1.5, "1", undefined])("the version %o", (version) => {
    expect(() => declare({ version })).toThrow(refusal(/no version/));
  });

  it.each(["sync", "", undefined])("the durability %o", (durability) => {
    expect(() => declare({ durability })).toThrow(refusal(/no durability/));
  });

  it.each([undefined, null, {}, "graph", { compile: true }])("the graph %o", (graph) => {
    expect(() => declare({ graph })).toThrow(refusal(/no graph/));
  });

  it.each([
    ["exit", { commitments: [pay()] }],
    ["exit", { onReject: "compensate" }],
    ["async", { lossWindow: "a minute", commitments: [pay()] }],
    ["async", { lossWindow: "a minute", onFailure: "compensate" }],
  ])("an %s graph that may commit or compensate", (durability, changes) => {
    expect(() => declare({ durability, ...changes })).toThrow(refusal(/under '(exit|async)'/));
  });

  it.each([undefined, "", "  "])("an async graph whose loss window is %o", (lossWindow) => {
    expect(() => declare({ durability: "async", lossWindow })).toThrow(refusal(/without a lossWindow/));
  });

  it("a commitment that is listed twice", () => {
    expect(() => declare({ commitments: [pay(), pay(2), pay()] })).toThrow(refusal(/payment\.send@1 twice/));
  });

  it.each([
    ["actorType", "recomender_agent"],
    ["onReject", "compensat"],
    ["onFailure", "undo"],
  ])("a %s of %o: a word that nobody knows must not mean the least strict one", (name, value) => {
    expect(() => declare({ [name]: value })).toThrow(refusal(new RegExp(name)));
  });

  it("a node whose results are cached: a hit persists nothing, so a wait in it would be lost", () => {
    const cached = new StateGraph(State)
      .addNode("step", () => ({ value: 1 }), { cachePolicy: { ttl: 60 } })
      .addEdge(START, "step");
    expect(() => declare({ graph: cached })).toThrow(refusal(/caches its node 'step'/));
  });

  it("a subgraph without a checkpointer, at any depth", () => {
    const bare = builder().compile({ checkpointer: false });
    const inner = new StateGraph(State).addNode("bare", bare).addEdge(START, "bare").compile();
    const outer = new StateGraph(State).addNode("inner", inner).addEdge(START, "inner");
    const direct = new StateGraph(State).addNode("bare", bare).addEdge(START, "bare");
    expect(() => declare({ graph: direct })).toThrow(refusal(/subgraph 'bare'/));
    expect(() => declare({ graph: outer })).toThrow(refusal(/subgraph 'bare'/));
  });

  it("neither of these where nothing is persisted anyway", () => {
    const direct = new StateGraph(State)
      .addNode("bare", builder().compile({ checkpointer: false }))
      .addEdge(START, "bare");
    expect(() => declare({ graph: direct, durability: "exit" })).not.toThrow();
  });
});

describe("when a graph is compiled", () => {
  const checkpointer = new MemorySaver();

  it("it runs with the checkpointer that its factory got, an exit graph with none", () => {
    expect(() => assertRunnable(declare({}), builder().compile({ checkpointer }), checkpointer)).not.toThrow();
    expect(() => assertRunnable(declare({ durability: "exit" }), builder().compile(), undefined)).not.toThrow();
  });

  it("a factory that forgot the checkpointer, or took another, is refused", () => {
    for (const compiled of [builder().compile(), builder().compile({ checkpointer: new MemorySaver() })]) {
      expect(() => assertRunnable(declare({}), compiled, checkpointer)).toThrow(refusal(/not compiled with/));
    }
  });

  it("an exit graph that brings a checkpointer is refused", () => {
    const compiled = builder().compile({ checkpointer });
    expect(() => assertRunnable(declare({ durability: "exit" }), compiled, undefined)).toThrow(
      refusal(/'exit' yet compiled/),
    );
  });

  it.each([{ interruptBefore: ["step"] }, { interruptAfter: ["step"] }, { interruptBefore: "*" }] as const)(
    "static breakpoints are refused: %o",
    (breakpoints) => {
      const compiled = builder().compile({ checkpointer, ...(breakpoints as object) });
      expect(() => assertRunnable(declare({}), compiled, checkpointer)).toThrow(refusal(/static breakpoints/));
    },
  );

  it("what a factory hid is found: a cached node, a subgraph without a checkpointer", () => {
    const cached = new StateGraph(State)
      .addNode("step", () => ({ value: 1 }), { cachePolicy: true })
      .addEdge(START, "step")
      .compile({ checkpointer, cache: new InMemoryCache() });
    const bare = new StateGraph(State)
      .addNode("bare", builder().compile({ checkpointer: false }))
      .addEdge(START, "bare")
      .compile({ checkpointer });
    expect(() => assertRunnable(declare({}), cached, checkpointer)).toThrow(refusal(/caches its node/));
    expect(() => assertRunnable(declare({}), bare, checkpointer)).toThrow(refusal(/subgraph 'bare'/));
  });

  it("the functional API and an empty graph are looked at like any other", () => {
    const functional = entrypoint({ name: "functional", checkpointer }, async () => interrupt("?"));
    expect(() => assertRunnable(declare({}), functional, checkpointer)).not.toThrow();
    const empty = { checkpointer } as never;
    expect(() => assertRunnable(declare({}), empty, checkpointer)).not.toThrow();
  });
});
