import type { AuditRow } from "../audit.ts";
import { loadAudit } from "../database/audit-log.ts";
import type { Database } from "../database/client.ts";
import { loadThread, type ThreadEnd } from "../database/threads.ts";
import type { Wakeups } from "../database/wakeups.ts";
import { ThreadError } from "../errors.ts";
import type { Serializer } from "./drive-thread.ts";
import { isEnded, type ThreadEnds } from "./thread-ends.ts";

export interface TimelineInput {
  readonly database: Database;
  readonly wakeups: Wakeups;
  readonly ends: ThreadEnds;
  readonly pollIntervalMs: number;
  readonly threadId: string;
  readonly signal: AbortSignal;
}

/**
 * What happened on a thread, from its start on and live: its audit rows, in their order, each once.
 * Ends when the thread has ended and everything was told, or when the signal aborts.
 * @throws ThreadError `THREAD_NOT_FOUND`
 */
export async function* timeline(input: TimelineInput, closing: AbortSignal): AsyncGenerator<AuditRow> {
  const { database, wakeups, threadId, signal } = input;
  for (let afterSeq = 0; !signal.aborted; ) {
    const watch = wakeups.watch("changed", "ready", "runnable");
    const thread = await loadThread(database, threadId);
    if (thread === undefined) throw unknownThread(threadId);
    const rows = await loadAudit(database, { threadId, afterSeq });
    for (const row of rows) {
      yield row;
      afterSeq = row.seq;
    }
    if (rows.length === 0 && isEnded(thread.status)) return watch.cancel();
    if (rows.length > 0) watch.cancel();
    else await watch.until(input.pollIntervalMs, signal);
  }
  // Whoever aborted knows why the events end; whoever listens to a handle that was closed does not.
  closing.throwIfAborted();
}

/** Waits until a thread has ended. @throws ThreadError `THREAD_NOT_FOUND`; the signal's reason on abort. */
async function untilEnded({ ends, wakeups, threadId, pollIntervalMs, signal }: TimelineInput): Promise<ThreadEnd> {
  for (;;) {
    signal.throwIfAborted();
    const watch = wakeups.watch("ended");
    const thread = await ends.find(threadId);
    if (thread === undefined || isEnded(thread.status)) watch.cancel();
    if (thread === undefined) throw unknownThread(threadId);
    if (isEnded(thread.status)) return thread;
    await watch.until(pollIntervalMs, signal);
  }
}

/** How a thread ended. */
export interface Result<Output = unknown> {
  readonly threadId: string;
  readonly status: "completed" | "cancelled" | "compensated" | "compensation_failed";
  /** What the graph ended with; undefined if it never did. */
  readonly output: Output | undefined;
}

/**
 * Waits for the end of a thread and says how it ended.
 * @throws ThreadError `THREAD_FAILED` when it failed or was lost: it can be retried then.
 */
export async function resultOf<Output>(input: TimelineInput, serializer: Serializer): Promise<Result<Output>> {
  const { threadId } = input;
  const thread = await untilEnded(input);
  const { status, output_type: type, output } = thread;
  if (status === "failed" || status === "lost") {
    throw new ThreadError("THREAD_FAILED", `The thread is ${status}`, {
      facts: { threadId, error: thread.error?.code },
      remedy: "Look at its events, mend the cause, then cs.retry(threadId).",
      cause: thread.error,
    });
  }
  const value = type === null || output === null ? undefined : await serializer.loadsTyped(type, output);
  return { threadId, status: status as Result["status"], output: value as Output | undefined };
}

/** @internal */
export function unknownThread(threadId: string): ThreadError {
  return new ThreadError("THREAD_NOT_FOUND", "There is no such thread", {
    facts: { threadId },
    remedy: "Start it with cs.start(graph, input, { threadId }).",
  });
}
