import type { CallbackManager } from "@langchain/core/callbacks/manager";
import type { AnyCommitment } from "../commitment.ts";
import { appendAuditNotes } from "../database/audit-log.ts";
import type { Database } from "../database/client.ts";
import type { Release, ThreadRow, ThreadStatus } from "../database/threads.ts";
import { Drive } from "../drive.ts";
import { isCountersignError, LeaseLostError } from "../errors.ts";
import type { ExecutionIntent } from "../intent.ts";
import { DRIVE_KEY, isWait } from "../langgraph.ts";
import type { RunTracker } from "../run-tracker.ts";
import type { RegisteredGraph } from "./registry.ts";
import { type StreamSink, streamThrough } from "./stream-through.ts";

/** LangGraph's own serializer, as the saver has it. */
export interface Serializer {
  dumpsTyped(data: unknown): Promise<[string, Uint8Array]>;
  loadsTyped(type: string, data: Uint8Array | string): Promise<unknown>;
}

/** What this process adds to a run and no other process can: what is not in the database. */
export interface RunExtras {
  readonly callbacks?: unknown;
  readonly stream?: StreamSink;
}

export interface DriveThreadInput {
  readonly database: Database;
  readonly serializer: Serializer;
  readonly registered: RegisteredGraph;
  /** Leased by this process. */
  readonly thread: ThreadRow;
  readonly ownerOf: (commitment: AnyCommitment) => string;
  readonly maxPayloadBytes: number;
  /** Every intent of the thread so far, in the order in which they were recorded. */
  readonly recorded: (threadId: string) => Promise<readonly ExecutionIntent[]>;
  /** Lets go of the thread; `undefined` when the lease was lost. */
  readonly release: (release: Release) => Promise<ThreadStatus | undefined>;
  readonly extras: RunExtras;
  /** Aborted when the lease is lost or the process closes. */
  readonly signal: AbortSignal;
  readonly onError: (error: unknown) => void;
}

/** What a drive came to. `undefined` when the lease was lost: another process goes on. */
export interface DriveResult {
  readonly status: ThreadStatus | undefined;
  /** What was written down about its end. */
  readonly release?: Release;
  /** Whether it knows of requests that wait for people. */
  readonly asksPeople?: boolean;
  readonly error?: unknown;
}

/** The longest wait before a thread is driven again after the database or this process was at fault. */
const MAX_BACKOFF_MS = 30_000;

/**
 * One pass over a leased thread: load what has ended, run the graph until it ends or waits, let go.
 * The same operation after a start, a decision, an outcome, a timer, a crash or a deploy (design §3).
 */
export async function driveThread(input: DriveThreadInput): Promise<DriveResult> {
  const { thread, registered } = input;
  const drive = new Drive({
    graph: registered.graph,
    threadId: thread.thread_id,
    leaseToken: thread.lease_token,
    proposedBy: thread.proposed_by,
    traceId: thread.trace_id,
    maxPayloadBytes: input.maxPayloadBytes,
    outcomes: thread.begun === false ? [] : await input.recorded(thread.thread_id),
    ownerOf: input.ownerOf,
  });
  // failpoint: delivery.before
  const ended = await run(input, drive);
  // failpoint: delivery.within
  await note(input, drive);
  if (ended.kind === "lease-lost") return { status: undefined, error: ended.error };
  const release = await releaseOf(input, drive, ended);
  const result = { status: await input.release(release), release, asksPeople: drive.asksPeople };
  // failpoint: delivery.after
  return ended.kind === "failed" || ended.kind === "interrupted" ? { ...result, error: ended.error } : result;
}

/** How the graph's run ended, before anything of it is written down. */
type Ended =
  | { readonly kind: "finished"; readonly output: unknown }
  | { readonly kind: "waiting" }
  /** The graph's own fault: somebody must look, then `retry(threadId)`. */
  | { readonly kind: "failed"; readonly error: unknown }
  /** Not the graph's fault: the database went away, or this process closes. It is driven again. */
  | { readonly kind: "interrupted"; readonly error: unknown }
  | { readonly kind: "lease-lost"; readonly error: unknown };

async function run(input: DriveThreadInput, drive: Drive): Promise<Ended> {
  try {
    const output = await invoke(input, drive);
    if (drive.persistenceError !== undefined) return classify(input, drive, drive.persistenceError);
    return drive.waits ? { kind: "waiting" } : { kind: "finished", output };
  } catch (error) {
    if (isWait(error) && drive.persistenceError === undefined) return { kind: "waiting" };
    return classify(input, drive, drive.persistenceError ?? error);
  }
}

function classify(input: DriveThreadInput, drive: Drive, error: unknown): Ended {
  if (error instanceof LeaseLostError || input.signal.reason instanceof LeaseLostError) {
    return { kind: "lease-lost", error };
  }
  if (input.signal.aborted) return { kind: "interrupted", error };
  // SQLSTATE classes 22 and 54: the data itself cannot be stored, and to try again cannot help.
  const code = String((error as { code?: unknown } | null)?.code);
  const refused = (isCountersignError(error) && code !== "DATABASE_UNAVAILABLE") || /^(22|54)...$/.test(code);
  return { kind: drive.persistenceError === undefined || refused ? "failed" : "interrupted", error };
}

async function invoke(
  { thread, registered, serializer, extras, signal }: DriveThreadInput,
  drive: Drive,
): Promise<unknown> {
  const graphInput = thread.begun ? null : await serializer.loadsTyped(thread.input_type, thread.input);
  const config = {
    configurable: { thread_id: thread.thread_id, [DRIVE_KEY]: drive },
    durability: registered.graph.durability === "durable" ? "sync" : "async",
    signal,
    ...(thread.recursion_limit === null ? {} : { recursionLimit: thread.recursion_limit }),
    ...(thread.context === null || thread.context_type === null
      ? {}
      : { context: await serializer.loadsTyped(thread.context_type, thread.context) }),
    callbacks: withTracker(extras.callbacks, drive.runs),
  };
  if (extras.stream === undefined) return registered.compiled.invoke(graphInput, config);
  return streamThrough(registered.compiled, graphInput, config, extras.stream);
}

/** The caller's callbacks, a list or a manager, with ours beside them. */
function withTracker(callbacks: unknown, tracker: RunTracker): unknown {
  if (callbacks === undefined) return [tracker];
  return Array.isArray(callbacks) ? [...callbacks, tracker] : (callbacks as CallbackManager).copy([tracker]);
}

async function releaseOf(
  input: DriveThreadInput,
  drive: Drive,
  ended: Exclude<Ended, { kind: "lease-lost" }>,
): Promise<Release> {
  const { thread, serializer } = input;
  const lease = { threadId: thread.thread_id, leaseToken: thread.lease_token, wake: thread.wake };
  const persistLagMs = drive.persistLagMs;
  switch (ended.kind) {
    case "waiting":
      return { ...lease, status: "waiting", persistLagMs };
    case "finished":
      return { ...lease, status: "completed", persistLagMs, output: await serializer.dumpsTyped(ended.output ?? null) };
    case "failed":
      return { ...lease, status: "failed", persistLagMs, error: failureOf(ended.error) };
    case "interrupted": {
      if (thread.durability === "async") {
        return { ...lease, status: "lost", persistLagMs, error: failureOf(ended.error) };
      }
      const closing = input.signal.aborted;
      const delayMs = closing ? 0 : Math.min(MAX_BACKOFF_MS, 200 * 2 ** thread.failures);
      return { ...lease, status: "ready", persistLagMs, delayMs };
    }
  }
}

/** What a graph threw, for `threads.error`. A foreign code could say anything, so the audit trail gets `GRAPH_ERROR`. */
function failureOf(error: unknown): NonNullable<Release["error"]> {
  if (!(error instanceof Error)) {
    return { code: "NON_ERROR_THROWN", reasonCode: "GRAPH_ERROR", message: `The graph threw a ${typeof error}` };
  }
  const { lc_error_code: langGraphCode, code: ownCode } = error as { lc_error_code?: unknown; code?: unknown };
  const known = [isCountersignError(error) ? error.code : langGraphCode].find(isCode);
  return {
    code: known ?? [ownCode].find(isCode) ?? error.name,
    reasonCode: known ?? "GRAPH_ERROR",
    message: String(error.message).toWellFormed().replaceAll("\u0000", "").slice(0, 2_000),
  };
}

function isCode(code: unknown): code is string {
  return typeof code === "string" && /^[A-Za-z0-9_.-]{1,80}$/.test(code);
}

/** Writes down what belongs in the audit trail and to no intent's state: divergences and refused attempts. */
async function note({ database, thread, onError }: DriveThreadInput, drive: Drive): Promise<void> {
  const common = { threadId: thread.thread_id, actorId: thread.proposed_by };
  for (const { intentId } of drive.divergences) {
    onError(new Error(`intent ${intentId}: a re-run proposed another payload; the recorded one stands`));
  }
  await appendAuditNotes(database, [
    ...drive.divergences.map(({ intentId, proposed }) => ({
      ...common,
      action: "intent.diverged" as const,
      intentId,
      commitment: drive.intents.get(intentId)?.workflowKey ?? null,
      digest: proposed,
      reasonCode: "recorded_wins",
    })),
    ...drive.denials.map(({ workflowKey, reasonCode }) => ({
      ...common,
      action: "policy.denied" as const,
      intentId: null,
      commitment: workflowKey,
      digest: null,
      reasonCode,
    })),
  ]);
}
