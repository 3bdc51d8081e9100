import { BaseCallbackHandler } from "@langchain/core/callbacks/base";

/** Which attempt of a task code runs in, and in which of its tool calls. */
export interface RunPlace {
  /** Names the attempt: a retry of the node is another one. */
  readonly attempt: string;
  /** Unique where the calls of one task race, as in LangGraph's `ToolNode`. */
  readonly toolCallId: string | undefined;
}

interface KnownRun {
  readonly parent: string | undefined;
  readonly startsAttempt: boolean;
  readonly toolCallId: string | undefined;
}

/**
 * Follows LangChain's run tree while a drive lasts. Inside a tool or a nested runnable LangChain hides
 * which attempt of a node is running and which tool call it is; the run tree leads to both, and a run
 * that is gone from it says that its node has ended.
 */
export class RunTracker extends BaseCallbackHandler {
  readonly name = "countersign";
  override awaitHandlers = true;
  readonly #runs = new Map<string, KnownRun>();

  /** Where a run stands, or `undefined` when it, or the node around it, has ended. */
  placeOf(runId: string | undefined): RunPlace | undefined {
    let toolCallId: string | undefined;
    for (let at = runId; at !== undefined; ) {
      const run = this.#runs.get(at);
      if (run === undefined) return undefined;
      toolCallId ??= run.toolCallId;
      if (run.startsAttempt) return { attempt: at, toolCallId };
      at = run.parent;
    }
    return undefined;
  }

  // LangChain passes the parent's id fourth and the tags fifth, whatever its types say of the middle.
  override handleChainStart(_chain: unknown, _input: unknown, runId: string, parent?: string, tags?: string[]): void {
    const startsAttempt = tags?.some((tag) => tag.startsWith("graph:step:")) ?? false;
    this.#runs.set(runId, { parent, startsAttempt, toolCallId: undefined });
  }

  override handleToolStart(_tool: unknown, _input: string, runId: string, parent?: string, ...rest: unknown[]): void {
    const toolCallId = rest[3] as string | undefined;
    this.#runs.set(runId, { parent, startsAttempt: false, toolCallId });
  }

  override handleChainEnd(_output: unknown, runId: string): void {
    this.#runs.delete(runId);
  }

  override handleChainError(_error: unknown, runId: string): void {
    this.#runs.delete(runId);
  }

  override handleToolEnd(_output: unknown, runId: string): void {
    this.#runs.delete(runId);
  }

  override handleToolError(_error: unknown, runId: string): void {
    this.#runs.delete(runId);
  }
}
