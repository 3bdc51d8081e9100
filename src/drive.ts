import type { AnyCommitment } from "./commitment.ts";
import { type ErrorFacts, WaitSwallowedError } from "./errors.ts";
import type { AnyGraph } from "./graph.ts";
import { type ExecutionIntent, hasEnded, type IntentProposal } from "./intent.ts";
import { RunTracker } from "./run-tracker.ts";

/*
 * A drive is one pass of a process over a thread. It carries, through LangGraph's `configurable`,
 * what both ends of the pass must share: the graph side (wait/) finds the recorded outcomes here and
 * leaves its proposals; the saver (checkpointers/) takes the proposals from here when LangGraph hands
 * it the writes of the task that made them, and the token under which it may write. Nothing here is
 * persisted: what a crash interrupts is found again by the ids, which are functions of the checkpoint.
 */

/** A wait that a task has asked for in this pass and that is not answered yet. */
export interface OpenWait {
  readonly proposal: IntentProposal;
  reject(interrupt: unknown): void;
}

/** What one attempt of one task did so far. A retry of the node starts a new one. */
export class TaskAttempt {
  readonly attempt: string;
  /** The digests that were proposed under a key of the caller's. */
  readonly keyed: Map<string, string> = new Map();
  /** Asked for in this tick; thrown together at its end. */
  readonly open: OpenWait[] = [];
  /** Recorded without waiting: they go with whatever the task writes first. */
  readonly unawaited: string[] = [];
  thrown: unknown;
  readonly #ordinals = new Map<string | undefined, number>();

  constructor(attempt: string) {
    this.attempt = attempt;
  }

  /** The place of the next call: its ordinal in the task, or in the tool call where tool calls race in one task. */
  nextPlace(toolCallId: string | undefined): string | number {
    const ordinal = this.#ordinals.get(toolCallId) ?? 0;
    this.#ordinals.set(toolCallId, ordinal + 1);
    return toolCallId === undefined ? ordinal : `tool:${toolCallId}:${ordinal}`;
  }
}

export interface DriveInput {
  readonly graph: AnyGraph;
  readonly threadId: string;
  readonly leaseToken: number;
  readonly proposedBy: string;
  readonly traceId: string | null;
  readonly outcomes: readonly ExecutionIntent[];
  readonly maxPayloadBytes: number;
  /** Which backend owns a commitment. */
  readonly ownerOf: (commitment: AnyCommitment) => string;
}

/** A node proposed something else than what was recorded at the same place; the recorded one won. */
export interface Divergence {
  readonly intentId: string;
  readonly recorded: string;
  readonly proposed: string;
}

/** @internal See the essay at the top of this file. */
export class Drive {
  readonly graph: AnyGraph;
  readonly threadId: string;
  readonly leaseToken: number;
  readonly proposedBy: string;
  readonly traceId: string | null;
  readonly maxPayloadBytes: number;
  readonly ownerOf: (commitment: AnyCommitment) => string;
  /** What was recorded before this pass, by id. */
  readonly intents: Map<string, ExecutionIntent>;
  /** Follows the runs of this pass: which attempt, which tool call. */
  readonly runs: RunTracker = new RunTracker();
  /** The checkpoints that the saver has read or written in this pass: a step on another one is not persisted. */
  readonly checkpoints: Set<string> = new Set();
  /** What this pass asks to be recorded, by id. */
  readonly proposals: Map<string, IntentProposal> = new Map();
  readonly divergences: Divergence[] = [];
  /** Refused by policy in this pass; audited when the pass ends. */
  readonly denials: { readonly workflowKey: string; readonly reasonCode: string }[] = [];
  /** The first thing that went wrong with persisting: the pass did not fail by the graph's fault. */
  persistenceError: unknown;
  /** The largest time between the end of a step and its persisted checkpoint. */
  persistLagMs = 0;
  readonly #tasks = new Map<string, TaskAttempt>();

  constructor(input: DriveInput) {
    this.graph = input.graph;
    this.threadId = input.threadId;
    this.leaseToken = input.leaseToken;
    this.proposedBy = input.proposedBy;
    this.traceId = input.traceId;
    this.maxPayloadBytes = input.maxPayloadBytes;
    this.ownerOf = input.ownerOf;
    this.intents = new Map(input.outcomes.map((intent) => [intent.id, intent]));
  }

  /** The state of the running attempt of a task; an older attempt's is dropped with what it asked for. */
  task(taskId: string, attempt: string): TaskAttempt {
    const known = this.#tasks.get(taskId);
    if (known !== undefined && known.attempt === attempt) return known;
    const fresh = new TaskAttempt(attempt);
    this.#tasks.set(taskId, fresh);
    return fresh;
  }

  /** Whether any task of this pass waits: the thread then waits, whatever `invoke` returned. */
  get waits(): boolean {
    return [...this.#tasks.values()].some((task) => task.thrown !== undefined);
  }

  /** Whether any request that this pass knows of waits for people. */
  get asksPeople(): boolean {
    return [...this.intents.values(), ...this.proposals.values()].some(({ status }) => status === "awaiting_decision");
  }

  /** Whether something ended that a task of this pass was told is still open. */
  isNews(intents: readonly ExecutionIntent[]): boolean {
    return intents.some((intent) => hasEnded(intent.status) && !this.hasOutcome(intent.id));
  }

  hasOutcome(id: string): boolean {
    const intent = this.intents.get(id);
    return intent !== undefined && hasEnded(intent.status);
  }

  /**
   * Called when LangGraph reports a task as finished well: it must not have asked for a wait, nor
   * left one un-awaited. Called by the saver before anything of the task is written.
   * @throws WaitSwallowedError
   */
  assertNothingSwallowed(taskId: string): void {
    const task = this.#tasks.get(taskId);
    if (task === undefined || (task.thrown === undefined && task.open.length === 0)) return;
    throw this.#swallowed({ taskId, cause: task.thrown === undefined ? "not awaited" : "caught" });
  }

  /**
   * Called before the graph's own checkpoint advances: a task that waits, however deep, holds its
   * step back, so a step that ends all the same has swallowed a wait on the way up.
   * @throws WaitSwallowedError
   */
  assertNoTaskWaits(): void {
    for (const [taskId, task] of this.#tasks) {
      if (task.thrown !== undefined) throw this.#swallowed({ taskId, cause: "caught" });
    }
  }

  #swallowed(facts: ErrorFacts): WaitSwallowedError {
    return new WaitSwallowedError({ graph: this.graph.name, threadId: this.threadId, ...facts });
  }
}
