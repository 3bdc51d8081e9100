import { setMaxListeners } from "node:events";
import type { AuditRow } from "../audit.ts";
import { loadIntent, loadThreadIntents } from "../database/intents.ts";
import { loadThread, retryThread, type ThreadRow, type ThreadStatus } from "../database/threads.ts";
import { DatabaseError, ThreadError } from "../errors.ts";
import type { AnyGraph, Graph } from "../graph.ts";
import type { ExecutionIntent } from "../intent.ts";
import { toJson } from "../json.ts";
import { assemble, type CatalogueEntry, type Parts } from "./assemble.ts";
import { AuditTrail } from "./audit-trail.ts";
import { type ApproveOptions, type RejectOptions, recordDecision } from "./decide.ts";
import {
  checkClose,
  checkFollow,
  checkIntent,
  checkThread,
  checkWork,
  type FollowOptions,
} from "./handle-arguments.ts";
import { type ForkOptions, forkThread, historyOf, stateOf, type ThreadSnapshot } from "./history.ts";
import { type PendingFilter, pendingRequests } from "./inbox.ts";
import type { CountersignOptions } from "./options.ts";
import {
  type ByPerson,
  type CompleteOptions,
  cancelIntent,
  cancelThreadById,
  completeEffect,
  type EffectRef,
  type EventInput,
  type FailOptions,
  failEffect,
  replay,
  sendEvent,
} from "./outside.ts";
import { type Pruned, type PruneOptions, pruneThreads } from "./prune.ts";
import { type Run, type StartOptions, type StreamOptions, startThread, streamThread } from "./start.ts";
import { type Result, resultOf, timeline, unknownThread } from "./timeline.ts";
import { workUntilIdle } from "./work-until-idle.ts";

/**
 * Opens Countersign on a database: applies pending migrations, compiles the graphs, and binds the
 * backend. It does no work yet: `start()` drives what it starts, `work()` does the rest.
 * @throws OptionError, DefinitionError, DatabaseError; nothing stays open then.
 */
export async function countersign(options: CountersignOptions): Promise<Countersign> {
  return new Countersign(await assemble(options));
}

/** A process's handle on the outbox. Made by {@link countersign}. */
export class Countersign implements AsyncDisposable {
  readonly #parts: Parts;
  readonly #closing = new AbortController();
  readonly #working = new Set<Promise<void>>();

  /** @internal Use {@link countersign}. */
  constructor(parts: Parts) {
    this.#parts = parts;
    // Everything that this handle waits for listens to it, any number of things at once.
    setMaxListeners(0, this.#closing.signal);
  }

  /**
   * Starts a thread, durably before it returns, and drives it until it waits or ends. A crash from
   * then on loses nothing: another process takes the thread over. An `exit` graph simply runs.
   * @throws ThreadError `THREAD_EXISTS` when the thread id is taken.
   */
  async start<Input, Output>(
    graph: Graph<Input, Output>,
    input: Input,
    options: StartOptions = {},
  ): Promise<Run<Output>> {
    return startThread(this.#open.starting, graph as AnyGraph, input, options) as Promise<Run<Output>>;
  }

  /**
   * Starts a thread like `start()` and passes LangGraph's own stream through while this process
   * drives it: tokens, updates, values, custom. Ends when the thread waits or ends. Given a thread
   * id, it drives that thread, if it is ready, and streams that.
   */
  stream<Input>(graph: Graph<Input>, input: Input, options: StartOptions & StreamOptions): AsyncGenerator<unknown, Run>;
  stream(threadId: string, options: StreamOptions): AsyncGenerator<unknown, Run>;
  stream(
    subject: AnyGraph | string,
    inputOrOptions: unknown,
    options?: StartOptions & StreamOptions,
  ): AsyncGenerator<unknown, Run> {
    // A generator, so that a closed handle is told when the first chunk is asked for, like everywhere else.
    const begin = () =>
      typeof subject === "string"
        ? streamThread(this.#open.starting, subject, inputOrOptions as StreamOptions)
        : streamThread(
            this.#open.starting,
            { graph: subject, input: inputOrOptions },
            options as StartOptions & StreamOptions,
          );
    return (async function* () {
      return yield* begin();
    })();
  }

  /** Drives a thread now, if it is ready or its driver died; else says how it stands. */
  async drive(threadId: string): Promise<ThreadStatus> {
    checkThread({ threadId });
    const result = await this.#open.driver.driveById(threadId);
    return result?.status ?? (await this.#thread(threadId)).status;
  }

  /** Makes a failed or lost thread ready again, after its cause was mended. @throws ThreadError `THREAD_STATE` */
  async retry(threadId: string): Promise<void> {
    checkThread({ threadId });
    if (await retryThread(this.#open.database, threadId)) return;
    const { status } = await this.#thread(threadId);
    throw new ThreadError("THREAD_STATE", "Only a failed or lost thread can be retried", {
      facts: { threadId, status },
      remedy: "Nothing changed.",
    });
  }

  /**
   * Waits for the end of a thread.
   * @throws ThreadError `THREAD_FAILED` when it failed or was lost: it can be retried then; the signal's reason on abort.
   */
  async result<Output = unknown>(threadId: string, options: FollowOptions = {}): Promise<Result<Output>> {
    return resultOf<Output>(this.#timeline(threadId, options), this.#parts.saver.serde);
  }

  /** What happened on a thread, from its start and live until it ends: its audit rows in their order. */
  events(threadId: string, options: FollowOptions = {}): AsyncGenerator<AuditRow> {
    return timeline(this.#timeline(threadId, options), this.#closing.signal);
  }

  #timeline(threadId: string, options: FollowOptions) {
    checkFollow({ threadId, options });
    const { signal } = options;
    const { database, wakeups, ends, settings } = this.#parts;
    const until = signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]);
    return { database, wakeups, ends, threadId, pollIntervalMs: settings.pollIntervalMs, signal: until };
  }

  /** The state of a thread now. */
  async state(threadId: string): Promise<ThreadSnapshot> {
    return stateOf(this.#open.history, threadId);
  }

  /** The states of a thread, the newest first. */
  async *history(threadId: string): AsyncGenerator<ThreadSnapshot> {
    yield* historyOf(this.#open.history, threadId);
  }

  /** Goes back to a checkpoint and on from there, with new intents; what still waited is cancelled. Drives it. */
  async fork(threadId: string, options: ForkOptions): Promise<ThreadStatus> {
    await forkThread(this.#open.history, threadId, options);
    return this.drive(threadId);
  }

  /** Requests that wait for people, across threads, the oldest first. */
  async pending(filter: PendingFilter = {}): Promise<ExecutionIntent[]> {
    return pendingRequests(this.#open.database, filter);
  }

  /** One intent, or `undefined`. */
  async intent(intentId: string): Promise<ExecutionIntent | undefined> {
    checkIntent({ intentId });
    return loadIntent(this.#open.database, intentId);
  }

  /** Every intent of a thread, in the order in which they were recorded. */
  async intents(threadId: string): Promise<ExecutionIntent[]> {
    checkThread({ threadId });
    return loadThreadIntents(this.#open.database, threadId);
  }

  /** Approves what the digest stands for. @throws DecisionError or IntentError; nothing changes then. */
  async approve(intentId: string, options: ApproveOptions): Promise<ExecutionIntent> {
    return recordDecision(this.#open.deciding, { intentId, verdict: "approve", options });
  }

  /**
   * Approves with amendments: the given top-level keys replace those of the payload, which must
   * still fit the schema. Earlier approvals count no more (rule 8).
   */
  async edit(
    intentId: string,
    amendment: Readonly<Record<string, unknown>>,
    options: ApproveOptions,
  ): Promise<ExecutionIntent> {
    const json = toJson(amendment, "The edit", this.#open.settings.maxPayloadBytes);
    return recordDecision(this.#open.deciding, { intentId, verdict: "edit", options, amendment: json });
  }

  /** Rejects, finally: nothing of it, nor of its `commitAll`, starts any more (G5). */
  async reject(intentId: string, options: RejectOptions): Promise<ExecutionIntent> {
    return recordDecision(this.#open.deciding, { intentId, verdict: "reject", options });
  }

  /** Ends a pending effect as done: what a webhook calls. The same word twice is one outcome. */
  async complete(ref: EffectRef, options: CompleteOptions): Promise<void> {
    return completeEffect(this.#open.outside, ref, options);
  }

  /** Ends a pending or `unknown` effect as failed. */
  async fail(ref: EffectRef, options: FailOptions): Promise<void> {
    return failEffect(this.#open.outside, ref, options);
  }

  /** Sends a named event to a thread; it is kept until something waits for it. False when it came before. */
  async sendEvent(threadId: string, event: EventInput): Promise<boolean> {
    return sendEvent(this.#open.outside, threadId, event);
  }

  /** Gives up one intent: at once if it has not started; one that runs is asked to stop. */
  async cancelIntent(intentId: string, options: ByPerson): Promise<void> {
    return cancelIntent(this.#open.outside, intentId, options);
  }

  /** Ends a thread: nothing more of it is recorded or started. */
  async cancel(threadId: string, options: ByPerson): Promise<void> {
    return cancelThreadById(this.#open.outside, threadId, options);
  }

  /** Runs a dead letter again, under the same key; an at-most-once one needs its decisions anew. */
  async replay(intentId: string, options: ByPerson): Promise<ExecutionIntent> {
    return replay(this.#open.outside, intentId, options);
  }

  /**
   * Takes away threads that ended before a date, with their intents, decisions and checkpoints, so that
   * the tables do not grow without end. What is still owed stays: an open intent, a failed compensation.
   * Choose a date beyond the time for which providers remember keys: with a row goes our own memory of it.
   * @throws OptionError
   */
  async prune(options: PruneOptions): Promise<Pruned> {
    return pruneThreads(this.#open.database, options);
  }

  /** Every commitment that this process registers, with the backend that owns it and what that says of it. */
  catalogue(): CatalogueEntry[] {
    return this.#open.catalogue;
  }

  /** The audit trail: read it, and verify that nobody changed it (G8). */
  readonly audit: AuditTrail = new AuditTrail(() => this.#open.database);

  /**
   * Works: carries out intents, drives threads that are ready or were left behind, ends timers and
   * overdue requests. Resolves when the signal aborts or the handle is closed.
   * With `until: "idle"` it does what is due now, until nothing is, and resolves.
   */
  async work(options: FollowOptions & { readonly until?: "idle" } = {}): Promise<void> {
    checkWork({ options });
    const { signal, until } = options;
    const { driver, worker, sweeper } = this.#open;
    const stop = signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]);
    const working =
      until === "idle"
        ? workUntilIdle({ driver, worker, sweeper }, stop)
        : Promise.all([driver.run(stop), worker.run(stop), sweeper.run(stop)]).then(() => {});
    this.#working.add(working);
    try {
      await working;
    } finally {
      this.#working.delete(working);
    }
  }

  /**
   * Stops to take on work, lets what runs finish for at most `timeoutMs`, and closes what it opened.
   * What is not finished by then is taken over by others: nothing is lost.
   * @param timeoutMs defaults to 10 000.
   */
  async close(options: { readonly timeoutMs?: number } = {}): Promise<void> {
    checkClose({ options });
    const { timeoutMs = 10_000 } = options;
    if (this.#closing.signal.aborted) return;
    const { driver, worker, wakeups, database } = this.#parts;
    const closed = { remedy: "Open it again with countersign()." };
    this.#closing.abort(new DatabaseError("CLOSED", "Countersign was closed", closed));
    await Promise.all([worker.drain(timeoutMs), driver.drain(timeoutMs)]);
    await Promise.allSettled(this.#working);
    await wakeups.close();
    await database.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** What every call works with, as long as the handle is open. */
  get #open(): Parts {
    this.#closing.signal.throwIfAborted();
    return this.#parts;
  }

  async #thread(threadId: string): Promise<ThreadRow> {
    const thread = await loadThread(this.#open.database, threadId);
    if (thread === undefined) throw unknownThread(threadId);
    return thread;
  }
}
