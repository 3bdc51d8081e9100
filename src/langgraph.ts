import { AsyncLocalStorageProviderSingleton } from "@langchain/core/singletons";
import { GraphInterrupt, isGraphInterrupt } from "@langchain/langgraph";

/*
 * Everything that we know of LangGraph beyond its public types, in one place:
 * `test/integration/langgraph-contract.test.ts` holds each of these against the installed version.
 */

/** The channel on which LangGraph passes an interrupt to `putWrites`. */
export const INTERRUPT_CHANNEL = "__interrupt__";
/** The channel of a task that threw. */
export const ERROR_CHANNEL = "__error__";
export const ERROR_SOURCE_CHANNEL = "__error_source_node__";
/** A channel that no graph has: what is written to it reaches `putWrites` and nothing else. */
export const INTENT_CHANNEL = "__countersign_intent__";
/** The key in `configurable` under which a drive travels to nodes, `put` and `putWrites`. */
export const DRIVE_KEY = "__countersign_drive";
/** The key in `configurable` of the writes that an update of the state is to hold back. */
export const HELD_KEY = "__countersign_held";

/** The running task, as LangGraph's config shows it to a node, a tool or a `task()`. */
export interface RunningTask {
  readonly threadId: string;
  readonly checkpointNs: string;
  /** The checkpoint that its step stands on, of the graph or subgraph that it belongs to. */
  readonly checkpointId: string;
  readonly taskId: string;
  /** LangChain's id of the run around the caller: a node's, a tool's, or one nested in them. */
  readonly runId: string | undefined;
  readonly configurable: Readonly<Record<string, unknown>>;
}

interface VisibleConfig {
  readonly configurable?: Record<string, unknown>;
  readonly callbacks?: { getParentRunId?(): string | undefined };
}

/** The task that is running in this async context, or `undefined` outside a graph run. */
export function runningTask(): RunningTask | undefined {
  const config = AsyncLocalStorageProviderSingleton.getRunnableConfig() as VisibleConfig | undefined;
  const configurable = config?.configurable;
  const taskId = configurable?.__pregel_task_id;
  if (configurable === undefined || typeof taskId !== "string") return undefined;
  const checkpointNs = String(configurable.checkpoint_ns ?? "");
  const checkpoints = (configurable.checkpoint_map ?? {}) as Readonly<Record<string, string>>;
  return {
    threadId: String(configurable.thread_id ?? ""),
    checkpointNs,
    checkpointId: checkpoints[checkpointNs.split("|").slice(0, -1).join("|")] ?? "",
    taskId,
    runId: config?.callbacks?.getParentRunId?.(),
    configurable,
  };
}

/** Adds a write to the running task: it arrives in the same `putWrites` as the task's own, and is dropped on retry. */
export function writeWithTask(task: RunningTask, channel: string, value: unknown): void {
  const send = task.configurable.__pregel_send as (writes: [string, unknown][]) => void;
  send([[channel, value]]);
}

/** The control-flow throw of a wait. `ids` are the intents that must be recorded with it. */
export function waitInterrupt(id: string, value: object): GraphInterrupt {
  return new GraphInterrupt([{ id, value }]);
}

/**
 * Whether an error is the control-flow throw of a wait. Code that must catch errors around a wait
 * rethrows what this recognises.
 */
export function isWait(error: unknown): boolean {
  return isGraphInterrupt(error);
}
