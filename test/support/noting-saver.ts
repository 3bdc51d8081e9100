import type { RunnableConfig } from "@langchain/core/runnables";
import { Annotation, END, MemorySaver, START, StateGraph } from "@langchain/langgraph";
import type { PendingWrite } from "@langchain/langgraph-checkpoint";
import { type RunningTask, runningTask } from "../../src/langgraph.ts";

type PutWrites = Parameters<MemorySaver["putWrites"]>;
type Put = Parameters<MemorySaver["put"]>;

/** LangGraph's own saver, which notes what it is called with. */
export class NotingSaver extends MemorySaver {
  readonly putWritesCalls: { config: RunnableConfig; writes: PendingWrite[]; taskId: string }[] = [];
  readonly putCalls: { config: RunnableConfig; checkpoint: Put[1]; metadata: Put[2] }[] = [];

  override putWrites(...args: PutWrites): Promise<void> {
    const [config, writes, taskId] = args;
    this.putWritesCalls.push({ config, writes, taskId });
    return super.putWrites(...args);
  }

  override put(...args: Put): ReturnType<MemorySaver["put"]> {
    const [config, checkpoint, metadata] = args;
    this.putCalls.push({ config, checkpoint, metadata });
    return super.put(...args);
  }

  /** What was written on this channel, call by call. */
  on(channel: string): { taskId: string; value: unknown }[] {
    return this.putWritesCalls.flatMap(({ writes, taskId }) =>
      writes.filter(([name]) => name === channel).map(([, value]) => ({ taskId, value })),
    );
  }
}

export const State = Annotation.Root({ step: Annotation<number>, tries: Annotation<number> });
export const sync = (extra: object = {}) => ({
  configurable: { thread_id: "t", ...extra },
  durability: "sync" as const,
});

export type Node = (state: typeof State.State, config: RunnableConfig) => object | Promise<object>;

export function single(node: Node, options: object = {}) {
  return new StateGraph(State).addNode("node", node, options).addEdge(START, "node").addEdge("node", END);
}

export const retryPolicy = { maxAttempts: 3, initialInterval: 1, jitter: false, logWarning: false };

export function here(): RunningTask {
  const running = runningTask();
  if (running === undefined) throw new Error("no task is running");
  return running;
}
