import { z } from "zod";
import { HeldWrites } from "../../checkpointers/held-writes.ts";
import type { CountersignSaver } from "../../checkpointers/saver.ts";
import { anything, checker, text } from "../arguments.ts";
import { appendAuditNotes } from "../database/audit-log.ts";
import type { Database, Queryable } from "../database/client.ts";
import { lockThreadIntents } from "../database/compensation.ts";
import { cancelIntents } from "../database/decisions.ts";
import { leaseIdleThread, loadThread, releaseThreads } from "../database/threads.ts";
import { ThreadError } from "../errors.ts";
import { type ExecutionIntent, hasEnded } from "../intent.ts";
import { HELD_KEY } from "../langgraph.ts";
import type { Registry } from "./registry.ts";
import { unknownThread } from "./timeline.ts";

/** A state of a thread, as LangGraph's `getState` tells it, without our own keys. */
export interface ThreadSnapshot<Values = unknown> {
  readonly values: Values;
  readonly next: readonly string[];
  readonly checkpointId: string;
  readonly parentCheckpointId: string | undefined;
  readonly createdAt: string | undefined;
  readonly metadata: unknown;
}

export interface HistoryContext {
  readonly database: Database;
  readonly registry: Registry;
  readonly saver: CountersignSaver;
  readonly driverId: string;
  readonly leaseMs: number;
}

export interface ForkOptions {
  /** From where: a checkpoint of `history(threadId)`. */
  readonly checkpointId: string;
  /** A state update on top of it, as LangGraph's `updateState` takes it. */
  readonly values?: unknown;
  /** The node that the update comes from, as in LangGraph's `updateState`. */
  readonly asNode?: string;
  /** Who forks, for the audit trail. */
  readonly by?: string;
}

const checkThread = checker("A thread's history", { threadId: text });
const checkFork = checker("fork()", {
  options: z.strictObject({
    checkpointId: text,
    values: anything,
    asNode: text.optional(),
    by: text.optional(),
  }),
});

/** The state of a thread now. @throws ThreadError `THREAD_NOT_FOUND` */
export async function stateOf(context: HistoryContext, threadId: string): Promise<ThreadSnapshot> {
  const { compiled } = await registeredFor(context, threadId);
  return snapshotOf(await compiled.getState({ configurable: { thread_id: threadId } }));
}

/** The states of a thread, the newest first. @throws ThreadError `THREAD_NOT_FOUND` */
export async function* historyOf(context: HistoryContext, threadId: string): AsyncGenerator<ThreadSnapshot> {
  const { compiled } = await registeredFor(context, threadId);
  for await (const state of compiled.getStateHistory({ configurable: { thread_id: threadId } }))
    yield snapshotOf(state);
}

/**
 * Goes back to a checkpoint and on from there, with new task ids and so with new intents. What the
 * abandoned branch still waited for is cancelled with it, so that nobody can approve it any more; what
 * it has done stays done and on record. A fork that fails changes nothing.
 * @throws ThreadError `THREAD_STATE` while the thread is driven, or an effect of it is under way or being undone.
 */
export async function forkThread(context: HistoryContext, threadId: string, options: ForkOptions): Promise<void> {
  checkFork({ options });
  const { compiled } = await registeredFor(context, threadId);
  const at = { thread_id: threadId, checkpoint_ns: "", checkpoint_id: options.checkpointId };
  if ((await context.saver.getTuple({ configurable: at })) === undefined) {
    throw new ThreadError("THREAD_STATE", "The thread has no such checkpoint", {
      facts: { threadId, checkpointId: options.checkpointId },
      remedy: "Take a checkpointId from cs.history(threadId).",
    });
  }
  // The graph's own code runs here: outside of the transaction, which it would hold up.
  const branch = new HeldWrites();
  const config = { configurable: { ...at, [HELD_KEY]: branch } };
  await compiled.updateState(config, options.values ?? null, options.values == null ? undefined : options.asNode);
  await context.database.transaction((tx) =>
    goOnFrom(tx, context, { threadId, branch, by: options.by ?? "countersign" }),
  );
}

/**
 * Leaves what the thread is at for the new branch. Looks at its rows under their locks, since whoever
 * holds one of them may be about to claim an effect, to undo it, or to drive the thread.
 */
async function goOnFrom(
  tx: Queryable,
  { driverId: driver, leaseMs }: HistoryContext,
  { threadId, branch, by }: { readonly threadId: string; readonly branch: HeldWrites; readonly by: string },
): Promise<void> {
  const intents = await lockThreadIntents(tx, threadId);
  const thread = await leaseIdleThread(tx, { threadId, driver, leaseMs });
  if (thread === undefined || intents.some(isBeingUndone)) throw notForkable(threadId);
  const open = intents.filter((intent) => !hasEnded(intent.status)).map((intent) => intent.id);
  const cancelled = await cancelIntents(tx, { ids: open, by, byType: "human", reasonCode: "forked" });
  // The rest is dispatched or unknown: what it does would be done again.
  if (cancelled.length < open.length) throw notForkable(threadId);
  const note = { threadId, action: "thread.forked", actorId: by } as const;
  await appendAuditNotes(tx, [{ ...note, intentId: null, commitment: null, digest: null, reasonCode: null }]);
  await branch.persist(tx, thread.lease_token);
  await releaseThreads(tx, [{ threadId, leaseToken: thread.lease_token, wake: thread.wake, status: "ready" }]);
}

/** What is being undone is undone to its end (rule 16). */
function isBeingUndone({ kind, status }: ExecutionIntent): boolean {
  return status === "compensating" || (kind === "compensation" && !hasEnded(status));
}

function notForkable(threadId: string): ThreadError {
  return new ThreadError(
    "THREAD_STATE",
    "The thread cannot be forked now: it is being driven, or an effect of it is under way",
    {
      facts: { threadId },
      remedy: "Try again when it waits or has ended.",
    },
  );
}

async function registeredFor({ database, registry }: HistoryContext, threadId: string) {
  checkThread({ threadId });
  const thread = await loadThread(database, threadId);
  if (thread === undefined) throw unknownThread(threadId);
  return registry.graph(thread.graph, thread.graph_version);
}

interface LangGraphSnapshot {
  readonly values: unknown;
  readonly next: readonly string[];
  readonly config: { readonly configurable?: { readonly checkpoint_id?: string } };
  readonly parentConfig?: { readonly configurable?: { readonly checkpoint_id?: string } };
  readonly createdAt?: string;
  readonly metadata?: unknown;
}

function snapshotOf(state: LangGraphSnapshot): ThreadSnapshot {
  return {
    values: state.values,
    next: state.next,
    checkpointId: state.config.configurable?.checkpoint_id ?? "",
    parentCheckpointId: state.parentConfig?.configurable?.checkpoint_id,
    createdAt: state.createdAt,
    metadata: state.metadata,
  };
}
