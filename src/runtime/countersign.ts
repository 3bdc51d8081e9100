import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { CountersignSaver } from "../../checkpointers/saver.ts";
import { type AuditBreak, type AuditRow, verifyAuditChain } from "../audit.ts";
import type { BackendWorker } from "../backend.ts";
import { loadAudit, loadChainHeads } from "../database/audit-log.ts";
import type { Database } from "../database/client.ts";
import { loadInbox } from "../database/inbox.ts";
import { loadIntent, loadThreadIntents } from "../database/intents.ts";
import { loadThread, retryThread, type ThreadRow, type ThreadStatus } from "../database/threads.ts";
import { Wakeups } from "../database/wakeups.ts";
import type { Principal } from "../decision.ts";
import { DatabaseError, OptionError, ThreadError } from "../errors.ts";
import type { AnyGraph, Graph } from "../graph.ts";
import type { ExecutionIntent } from "../intent.ts";
import { toJson } from "../json.ts";
import { type ApproveOptions, type DecideContext, type RejectOptions, recordDecision } from "./decide.ts";
import { Driver } from "./driver.ts";
import { assertDurabilityHonoured } from "./durability-check.ts";
import {
  type ForkOptions,
  forkThread,
  type HistoryContext,
  historyOf,
  stateOf,
  type ThreadSnapshot,
} from "./history.ts";
import { type CountersignOptions, openDatabase, type Settings, settingsOf } from "./options.ts";
import {
  type CompleteOptions,
  cancelIntent,
  cancelThreadById,
  completeEffect,
  type EffectRef,
  type EventInput,
  type FailOptions,
  failEffect,
  type OutsideContext,
  replay,
  sendEvent,
} from "./outside.ts";
import { Registry } from "./registry.ts";
import { type Run, type StartOptions, type StreamOptions, startThread, streamThread } from "./start.ts";
import { Sweeper } from "./sweeper.ts";
import { timeline, unknownThread, untilEnded } from "./timeline.ts";

/** Which requests `pending()` lists. All given conditions must hold. */
export interface PendingFilter {
  readonly tenant?: string;
  readonly threadId?: string;
  /** The name of a commitment or decision. */
  readonly commitment?: string;
  /** Only what a person with this role may decide. */
  readonly role?: string;
  /** Only what this person has not approved yet. */
  readonly principalId?: string;
  /** The last intent of the page before. */
  readonly after?: Pick<ExecutionIntent, "createdAt" | "id">;
  /** At most 500. Defaults to 100. */
  readonly limit?: number;
}

/** How a thread ended. */
export interface Result<Output = unknown> {
  readonly threadId: string;
  readonly status: "completed" | "cancelled" | "compensated" | "compensation_failed";
  /** What the graph ended with; undefined if it never did. */
  readonly output: Output | undefined;
}

/**
 * Opens Countersign on a database: applies pending migrations, compiles the graphs, and binds the
 * backend. It does no work yet: `start()` drives what it starts, `work()` does the rest.
 * @throws OptionError, DefinitionError, DatabaseError; nothing stays open then.
 */
export async function countersign(options: CountersignOptions): Promise<Countersign> {
  const settings = settingsOf(options);
  const database = await openDatabase(options.database, settings);
  const wakeups = new Wakeups();
  try {
    const saver = new CountersignSaver(database);
    await saver.setup();
    const registry = new Registry(options.graphs, { checkpointer: saver, store: options.store });
    if (options.graphs.some((graph) => graph.durability === "durable")) await assertDurabilityHonoured();
    await wakeups.open(database);
    return new Countersign({ options, settings, database, wakeups, saver, registry });
  } catch (error) {
    await wakeups.close();
    await database.close();
    throw error;
  }
}

interface Parts {
  readonly options: CountersignOptions;
  readonly settings: Settings;
  readonly database: Database;
  readonly wakeups: Wakeups;
  readonly saver: CountersignSaver;
  readonly registry: Registry;
}

/** A process's handle on the outbox. Made by {@link countersign}. */
export class Countersign implements AsyncDisposable {
  readonly #parts: Parts;
  readonly #driver: Driver;
  readonly #sweeper: Sweeper;
  readonly #worker: BackendWorker;
  readonly #decide: DecideContext;
  readonly #outside: OutsideContext;
  readonly #history: HistoryContext;
  readonly #closing = new AbortController();
  readonly #working = new Set<Promise<void>>();

  /** @internal Use {@link countersign}. */
  constructor(parts: Parts) {
    this.#parts = parts;
    const { settings, database, wakeups, registry, saver, options } = parts;
    const { backend } = options;
    const { commitments } = registry;
    const processId = `${hostname()}:${process.pid}:${randomUUID().slice(0, 8)}`;
    const shared = { ...settings, database, wakeups };
    this.#driver = new Driver({
      ...shared,
      registry,
      serializer: saver.serde,
      driverId: processId,
      ownerOf: () => backend.name,
    });
    this.#sweeper = new Sweeper(shared);
    this.#worker = backend.open({ ...shared, commitments, workerId: processId });
    this.#decide = { database, commitments };
    this.#outside = { database, commitments, released: (intent) => this.#worker.released(intent) };
    this.#history = { database, registry, saver, driverId: processId, leaseMs: settings.leaseMs };
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
    this.#assertOpen();
    return startThread(this.#starting, graph as AnyGraph, input, options) as Promise<Run<Output>>;
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
    this.#assertOpen();
    return typeof subject === "string"
      ? streamThread(this.#starting, subject, inputOrOptions as StreamOptions)
      : streamThread(
          this.#starting,
          { graph: subject, input: inputOrOptions },
          options as StartOptions & StreamOptions,
        );
  }

  get #starting() {
    const { database, registry, saver, settings } = this.#parts;
    return {
      database,
      registry,
      serializer: saver.serde,
      driver: this.#driver,
      driverId: this.#history.driverId,
      leaseMs: settings.leaseMs,
    };
  }

  /** Drives a thread now, if it is ready or its driver died; else says how it stands. */
  async drive(threadId: string): Promise<ThreadStatus> {
    this.#assertOpen();
    const result = await this.#driver.driveById(threadId);
    return result?.status ?? (await this.#thread(threadId)).status;
  }

  /** Makes a failed or lost thread ready again, after its cause was mended. @throws ThreadError `THREAD_STATE` */
  async retry(threadId: string): Promise<void> {
    this.#assertOpen();
    if (await retryThread(this.#parts.database, threadId)) return;
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
  async result<Output = unknown>(
    threadId: string,
    { signal }: { readonly signal?: AbortSignal } = {},
  ): Promise<Result<Output>> {
    const status = await untilEnded(this.#timeline(threadId, signal));
    const thread = await this.#thread(threadId);
    if (status === "failed" || status === "lost") {
      throw new ThreadError("THREAD_FAILED", `The thread is ${status}`, {
        facts: { threadId, error: thread.error?.code },
        remedy: "Look at its events, mend the cause, then cs.retry(threadId).",
        cause: thread.error,
      });
    }
    const output =
      thread.output === null || thread.output_type === null
        ? undefined
        : ((await this.#parts.saver.serde.loadsTyped(thread.output_type, thread.output)) as Output);
    return { threadId, status: status as Result["status"], output };
  }

  /** What happened on a thread, from its start and live until it ends: its audit rows in their order. */
  events(threadId: string, { signal }: { readonly signal?: AbortSignal } = {}): AsyncGenerator<AuditRow> {
    return timeline(this.#timeline(threadId, signal));
  }

  #timeline(threadId: string, signal: AbortSignal | undefined) {
    const { database, wakeups, settings } = this.#parts;
    const until = signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]);
    return { database, wakeups, threadId, pollIntervalMs: settings.pollIntervalMs, signal: until };
  }

  /** The state of a thread now. */
  state(threadId: string): Promise<ThreadSnapshot> {
    return stateOf(this.#history, threadId);
  }

  /** The states of a thread, the newest first. */
  history(threadId: string): AsyncGenerator<ThreadSnapshot> {
    return historyOf(this.#history, threadId);
  }

  /** Goes back to a checkpoint and on from there, with new intents; what still waited is cancelled. Drives it. */
  async fork(threadId: string, options: ForkOptions): Promise<ThreadStatus> {
    this.#assertOpen();
    await forkThread(this.#history, threadId, options);
    return this.drive(threadId);
  }

  /** Requests that wait for people, across threads, the oldest first. */
  async pending(filter: PendingFilter = {}): Promise<ExecutionIntent[]> {
    const { limit = 100 } = filter;
    if (!Number.isInteger(limit) || limit < 1 || limit > 500) {
      throw new OptionError("pending() got a limit that makes no sense", {
        facts: { limit: String(limit) },
        remedy: "Give a whole number from 1 to 500, and page with `after`.",
      });
    }
    return loadInbox(this.#parts.database, { ...filter, limit });
  }

  /** One intent, or `undefined`. */
  intent(intentId: string): Promise<ExecutionIntent | undefined> {
    return loadIntent(this.#parts.database, intentId);
  }

  /** Every intent of a thread, in the order in which they were recorded. */
  intents(threadId: string): Promise<ExecutionIntent[]> {
    return loadThreadIntents(this.#parts.database, threadId);
  }

  /** Approves what the digest stands for. @throws DecisionError or IntentError; nothing changes then. */
  approve(intentId: string, options: ApproveOptions): Promise<ExecutionIntent> {
    return recordDecision(this.#decide, { intentId, verdict: "approve", options });
  }

  /**
   * Approves with amendments: the given top-level keys replace those of the payload, which must
   * still fit the schema. Earlier approvals count no more (rule 8).
   */
  edit(
    intentId: string,
    amendment: Readonly<Record<string, unknown>>,
    options: ApproveOptions,
  ): Promise<ExecutionIntent> {
    const json = toJson(amendment, "The edit");
    return recordDecision(this.#decide, { intentId, verdict: "edit", options, amendment: json });
  }

  /** Rejects, finally: nothing of it, nor of its `commitAll`, starts any more (G5). */
  reject(intentId: string, options: RejectOptions): Promise<ExecutionIntent> {
    return recordDecision(this.#decide, { intentId, verdict: "reject", options });
  }

  /** Ends a pending effect as done: what a webhook calls. The same word twice is one outcome. */
  complete(ref: EffectRef, options: CompleteOptions): Promise<void> {
    return completeEffect(this.#outside, ref, options);
  }

  /** Ends a pending or `unknown` effect as failed. */
  fail(ref: EffectRef, options: FailOptions): Promise<void> {
    return failEffect(this.#outside, ref, options);
  }

  /** Sends a named event to a thread; it is kept until something waits for it. False when it came before. */
  sendEvent(threadId: string, event: EventInput): Promise<boolean> {
    return sendEvent(this.#outside, threadId, event);
  }

  /** Gives up one intent: at once if it has not started; one that runs is asked to stop. */
  cancelIntent(intentId: string, { by }: { readonly by: Principal }): Promise<void> {
    return cancelIntent(this.#outside, intentId, by);
  }

  /** Ends a thread: nothing more of it is recorded or started. */
  cancel(threadId: string, { by }: { readonly by: Principal }): Promise<void> {
    return cancelThreadById(this.#outside, threadId, by);
  }

  /** Runs a dead letter again, under the same key; an at-most-once one needs its decisions anew. */
  replay(intentId: string, { by }: { readonly by: Principal }): Promise<ExecutionIntent> {
    return replay(this.#outside, intentId, by);
  }

  /** The audit trail: read it, and verify that nobody changed it (G8). */
  readonly audit = {
    list: (threadId: string): Promise<AuditRow[]> => this.#auditRows(threadId),
    /** The first break of each chain that does not hold; empty when all hold. */
    verify: async (filter: { readonly threadId?: string } = {}): Promise<AuditBreak[]> => {
      const breaks: AuditBreak[] = [];
      for (const head of await loadChainHeads(this.#parts.database, filter.threadId)) {
        const broken = verifyAuditChain(await this.#auditRows(head.threadId), head);
        if (broken !== undefined) breaks.push({ ...broken, threadId: head.threadId });
      }
      return breaks;
    },
  };

  async #auditRows(threadId: string): Promise<AuditRow[]> {
    const rows: AuditRow[] = [];
    for (;;) {
      const page = await loadAudit(this.#parts.database, { threadId, afterSeq: rows.length });
      rows.push(...page);
      if (page.length === 0) return rows;
    }
  }

  /**
   * Works: carries out intents, drives threads that are ready or were left behind, ends timers and
   * overdue requests. Resolves when the signal aborts or the handle is closed.
   * With `until: "idle"` it does what is due now, until nothing is, and resolves.
   */
  async work({ signal, until }: { readonly signal?: AbortSignal; readonly until?: "idle" } = {}): Promise<void> {
    this.#assertOpen();
    if (until === "idle") return this.#untilIdle();
    const stop = signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]);
    const working = Promise.all([this.#driver.run(stop), this.#worker.run(stop), this.#sweeper.run(stop)]).then(
      () => {},
    );
    this.#working.add(working);
    try {
      await working;
    } finally {
      this.#working.delete(working);
    }
  }

  async #untilIdle(): Promise<void> {
    for (;;) {
      const swept = await this.#sweeper.tick();
      const driven = await this.#driver.tick();
      const carriedOut = await this.#worker.tick();
      if (swept + driven + carriedOut === 0) return;
    }
  }

  /**
   * Stops to take on work, lets what runs finish for at most `timeoutMs`, and closes what it opened.
   * What is not finished by then is taken over by others: nothing is lost.
   * @param timeoutMs defaults to 10 000.
   */
  async close({ timeoutMs = 10_000 }: { readonly timeoutMs?: number } = {}): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(
      new DatabaseError("CLOSED", "Countersign was closed", { remedy: "Open it again with countersign()." }),
    );
    await Promise.all([this.#worker.drain(timeoutMs), this.#driver.drain(timeoutMs)]);
    await Promise.allSettled(this.#working);
    await this.#parts.wakeups.close();
    await this.#parts.database.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #assertOpen(): void {
    this.#closing.signal.throwIfAborted();
  }

  async #thread(threadId: string): Promise<ThreadRow> {
    const thread = await loadThread(this.#parts.database, threadId);
    if (thread === undefined) throw unknownThread(threadId);
    return thread;
  }
}
