import { randomUUID } from "node:crypto";
import { z } from "zod";
import { anything, checker, signal, text } from "../arguments.ts";
import type { Batcher } from "../database/batcher.ts";
import type { Database } from "../database/client.ts";
import { loadInbox } from "../database/inbox.ts";
import type { NewThread } from "../database/new-threads.ts";
import { loadThread, type ThreadRow, type ThreadStatus } from "../database/threads.ts";
import { ThreadError } from "../errors.ts";
import type { AnyGraph } from "../graph.ts";
import type { ExecutionIntent } from "../intent.ts";
import type { DriveResult, RunExtras, Serializer } from "./drive-thread.ts";
import type { Driver } from "./driver.ts";
import type { Registry } from "./registry.ts";
import { type StreamSink, streamThrough } from "./stream-through.ts";
import { unknownThread } from "./timeline.ts";

export interface StartOptions {
  /** One life of a graph. Defaults to a random one. */
  readonly threadId?: string;
  /** What ties this thread to things outside. Defaults to the thread id. */
  readonly correlationId?: string;
  readonly tenant?: string;
  /** Who proposes, for four eyes and the audit trail. Defaults to `agent:<graph>`. */
  readonly proposedBy?: string;
  /** W3C trace context, handed on to the handlers. */
  readonly traceparent?: string;
  /** LangGraph's run context; kept with the thread, so that each drive of it gets it. */
  readonly context?: unknown;
  /** LangGraph's limit of supersteps in one drive. */
  readonly recursionLimit?: number;
  /** LangChain callbacks, for as long as this process drives the thread. */
  readonly callbacks?: unknown;
  readonly signal?: AbortSignal;
}

export interface StreamOptions {
  /** LangGraph's stream modes. With several, each chunk is `[mode, data]`. */
  readonly streamMode: string | readonly string[];
  /** Chunks of subgraphs too, each with its namespace in front, as in LangGraph. */
  readonly subgraphs?: boolean;
}

/** How a thread stands after it was driven. */
export interface Run<Output = unknown> {
  readonly threadId: string;
  readonly status: ThreadStatus;
  /** The requests of this thread that wait for people. */
  readonly pending: readonly ExecutionIntent[];
  /** What the graph ended with, once it has. */
  readonly output: Output | undefined;
  /** Why it failed or was lost. */
  readonly error: { readonly code: string; readonly message: string } | null;
  /** The measured loss window: the largest time between a step's end and its persisted checkpoint. Milliseconds. */
  readonly persistLagMs: number | null;
}

export interface StartContext {
  readonly database: Database;
  readonly registry: Registry;
  readonly serializer: Serializer;
  readonly driver: Driver;
  /** Threads that are started in one tick are recorded together; `undefined` when the id is taken. */
  readonly starts: Batcher<NewThread, ThreadRow | undefined>;
  readonly driverId: string;
  readonly leaseMs: number;
}

const isManager = (value: unknown): boolean => typeof (value as { copy?: unknown } | null)?.copy === "function";
const declared = z.looseObject({
  name: z.string(),
  version: z.int(),
  durability: z.enum(["exit", "async", "durable"]),
});
const streamOptions = {
  streamMode: z.union([text, z.array(text).min(1)]).optional(),
  subgraphs: z.boolean().optional(),
};
const checkStart = checker("start()", {
  graph: declared,
  options: z.strictObject({
    ...streamOptions,
    threadId: text.optional(),
    correlationId: text.optional(),
    tenant: text.optional(),
    proposedBy: text.optional(),
    traceparent: text.optional(),
    context: anything,
    recursionLimit: z.int().min(1).max(1_000_000).optional(),
    // A list, or one of LangChain's managers.
    callbacks: z.union([z.array(z.unknown()), z.custom(isManager)]).optional(),
    signal: signal.optional(),
  }),
});
const checkStream = checker("stream()", {
  subject: z.union([text, z.strictObject({ graph: declared, input: anything })]),
  options: z.looseObject({ ...streamOptions, streamMode: streamOptions.streamMode.nonoptional() }),
});

export async function startThread(
  context: StartContext,
  graph: AnyGraph,
  input: unknown,
  options: StartOptions,
  stream?: StreamSink,
): Promise<Run> {
  checkStart({ graph, options });
  const threadId = options.threadId ?? randomUUID();
  options.signal?.throwIfAborted();
  const extras: RunExtras = {
    ...(options.callbacks === undefined ? {} : { callbacks: options.callbacks }),
    ...(stream === undefined ? {} : { stream }),
  };
  if (graph.durability === "exit") return runOnce(context, graph, input, threadId, options, extras);
  const thread = await record(context, graph, input, threadId, options);
  const driven = await context.driver.drive({ ...thread, begun: false }, extras);
  return (await runAfter(context, threadId, driven)) ?? runOf(context, threadId);
}

/** How a thread stands, where its drive tells all there is to say: it has completed, or waits for nobody. */
async function runAfter(
  { serializer }: StartContext,
  threadId: string,
  { status, release, asksPeople }: DriveResult,
): Promise<Run | undefined> {
  const ended = status === "completed" && release?.output !== undefined;
  if (!ended && (status !== "waiting" || asksPeople)) return undefined;
  return {
    threadId,
    status,
    pending: [],
    output: release?.output === undefined ? undefined : await serializer.loadsTyped(...release.output),
    error: null,
    persistLagMs: release?.persistLagMs ?? null,
  };
}

/** An `exit` graph leaves no trace: LangGraph runs it, and that is all. */
async function runOnce(
  { registry }: StartContext,
  graph: AnyGraph,
  input: unknown,
  threadId: string,
  { context, recursionLimit, signal }: StartOptions,
  { callbacks, stream }: RunExtras,
): Promise<Run> {
  const { compiled } = registry.graph(graph.name, graph.version);
  const config = {
    ...(context === undefined ? {} : { context }),
    ...(recursionLimit === undefined ? {} : { recursionLimit }),
    ...(callbacks === undefined ? {} : { callbacks }),
    ...(signal === undefined ? {} : { signal }),
  };
  const ended = { threadId, status: "completed" as const, pending: [], error: null, persistLagMs: null };
  if (stream === undefined) return { ...ended, output: await compiled.invoke(input, config) };
  return { ...ended, output: await streamThrough(compiled, input, config, stream) };
}

/** The thread's row with its input commits before anything runs. */
async function record(
  { starts, serializer, driverId, leaseMs, registry }: StartContext,
  graph: AnyGraph,
  input: unknown,
  threadId: string,
  options: StartOptions,
): Promise<ThreadRow> {
  registry.graph(graph.name, graph.version);
  const thread = await starts.add({
    threadId,
    tenant: options.tenant ?? "default",
    graph: graph.name,
    graphVersion: graph.version,
    durability: graph.durability === "async" ? "async" : "durable",
    correlationId: options.correlationId ?? threadId,
    traceId: options.traceparent ?? null,
    proposedBy: options.proposedBy ?? `agent:${graph.name}`,
    input: await serializer.dumpsTyped(input),
    context: options.context === undefined ? null : await serializer.dumpsTyped(options.context),
    recursionLimit: options.recursionLimit ?? null,
    onReject: graph.onReject,
    onFailure: graph.onFailure,
    lossWindow: graph.lossWindow,
    lease: { owner: driverId, leaseMs },
  });
  if (thread !== undefined) return thread;
  throw new ThreadError("THREAD_EXISTS", "A thread with this id was started before", {
    facts: { threadId },
    remedy: "Go on with it: cs.result(threadId), cs.intents(threadId); or start another under a new id.",
  });
}

/** Runs a start or a drive, and yields LangGraph's chunks as they come. */
export async function* streamThread(
  context: StartContext,
  subject: string | { readonly graph: AnyGraph; readonly input: unknown },
  options: StartOptions & StreamOptions,
): AsyncGenerator<unknown, Run> {
  checkStream({ subject, options });
  const { streamMode, subgraphs = false } = options;
  const modes = typeof streamMode === "string" ? [streamMode] : streamMode;
  const chunks: unknown[] = [];
  let news: () => void = () => {};
  const stream = {
    modes,
    subgraphs,
    onChunk: (chunk: unknown) => {
      chunks.push(chunk);
      news();
    },
  };
  const driving: Promise<Run> =
    typeof subject === "string"
      ? context.driver.driveById(subject, { stream }).then(() => runOf(context, subject))
      : startThread(context, subject.graph, subject.input, options, stream);
  let done = false;
  const ended = driving.finally(() => {
    done = true;
    news();
  });
  ended.catch(() => {});
  while (!done || chunks.length > 0) {
    if (chunks.length > 0) yield chunks.shift();
    else {
      await new Promise<void>((resolve) => {
        news = resolve;
        if (done) resolve();
      });
    }
  }
  return ended;
}

/** How a thread stands now. */
export async function runOf({ database, serializer }: StartContext, threadId: string): Promise<Run> {
  const thread = await loadThread(database, threadId);
  if (thread === undefined) throw unknownThread(threadId);
  const { output_type: type, output } = thread;
  return {
    threadId,
    status: thread.status,
    pending: thread.status === "waiting" ? await loadInbox(database, { threadId, limit: 500 }) : [],
    output: type === null || output === null ? undefined : await serializer.loadsTyped(type, output),
    error: thread.error,
    persistLagMs: thread.persist_lag_ms,
  };
}
