import { randomUUID } from "node:crypto";
import { Annotation, START, StateGraph } from "@langchain/langgraph";
import type { BaseCheckpointSaver } from "@langchain/langgraph-checkpoint";
import { defineGraph } from "countersign";

/** Supersteps of one run of the chain. */
export const CHAIN_STEPS = 10;

const State = Annotation.Root({
  done: Annotation<number>,
  status: Annotation<string>,
  note: Annotation<string>,
  context: Annotation<string>,
});

/** A graph of nodes in a row, each of which changes three channels of its state and leaves one alone. */
function builder() {
  const names = Array.from({ length: CHAIN_STEPS }, (_, index) => `node-${index + 1}`);
  const nodes = names.map((name) => [
    name,
    ({ done }: typeof State.State) => ({ done: done + 1, status: name, note: `${name} `.padEnd(200, ".") }),
  ]);
  const chain = new StateGraph(State).addSequence(nodes as never);
  return chain.addEdge(START as never, names[0] as never);
}

export const chainInput = { done: 0, status: "", note: "", context: "c".repeat(1_000) };

/** One thread of the chain under a checkpointer: LangGraph alone, no driver around it. */
export function chainUnder(checkpointer: BaseCheckpointSaver): () => Promise<void> {
  const graph = builder().compile({ checkpointer });
  return async () => {
    const config = { configurable: { thread_id: randomUUID() }, durability: "sync" as const };
    const { done } = await graph.invoke(chainInput, config);
    if (done !== CHAIN_STEPS) throw new Error(`A chain stopped after ${done} steps`);
  };
}

/** The same graph for `cs.start()`: with a lease, a fence, and a row of its own. */
export const chainGraph = () => defineGraph({ name: "chain", version: 1, durability: "durable", graph: builder() });
