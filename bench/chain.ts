import { randomUUID } from "node:crypto";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import type { BaseCheckpointSaver } from "@langchain/langgraph-checkpoint";
import { defineGraph } from "countersign";

const State = Annotation.Root({ left: Annotation<number>, note: Annotation<string>, seen: Annotation<string> });

/** A graph that does one superstep after the other, each changing two channels of its state. */
function builder() {
  return new StateGraph(State)
    .addNode("step", ({ left }) => ({ left: left - 1, note: `step ${left}: `.padEnd(200, ".") }))
    .addEdge(START, "step")
    .addConditionalEdges("step", ({ left }) => (left > 0 ? "step" : END));
}

/** What a chain of this many supersteps is started with. */
export const chainInput = (steps: number) => ({ left: steps, note: "", seen: "s".repeat(1_000) });

/** A thread of this many durable supersteps under a checkpointer: LangGraph alone, no driver around it. */
export function chainUnder(checkpointer: BaseCheckpointSaver): (steps: number) => Promise<void> {
  const graph = builder().compile({ checkpointer });
  return async (steps) => {
    const { left } = await graph.invoke(chainInput(steps), {
      configurable: { thread_id: randomUUID() },
      durability: "sync",
      recursionLimit: steps + 2,
    });
    if (left !== 0) throw new Error(`A chain stopped with ${left} steps left`);
  };
}

/** The same graph for `cs.start()`: with a lease, a fence, and a row of its own. */
export const chainGraph = () => defineGraph({ name: "chain", version: 1, durability: "durable", graph: builder() });
