import type { AuditRow } from "../audit.ts";
import { loadAudit } from "../database/audit-log.ts";
import type { Database } from "../database/client.ts";
import { loadThread, type ThreadStatus } from "../database/threads.ts";
import type { Wakeups } from "../database/wakeups.ts";
import { ThreadError } from "../errors.ts";

/** A thread in one of these goes on only if somebody asks for it. */
const ENDED: ReadonlySet<ThreadStatus> = new Set([
  "completed",
  "failed",
  "lost",
  "cancelled",
  "compensated",
  "compensation_failed",
]);

/** Whether a thread has ended. */
export function isEnded(status: ThreadStatus): boolean {
  return ENDED.has(status);
}

export interface TimelineInput {
  readonly database: Database;
  readonly wakeups: Wakeups;
  readonly pollIntervalMs: number;
  readonly threadId: string;
  readonly signal: AbortSignal;
}

/**
 * What happened on a thread, from its start on and live: its audit rows, in their order, each once.
 * Ends when the thread has ended and everything was told, or when the signal aborts.
 * @throws ThreadError `THREAD_NOT_FOUND`
 */
export async function* timeline(input: TimelineInput): AsyncGenerator<AuditRow> {
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
}

/** Waits until a thread has ended. @throws ThreadError `THREAD_NOT_FOUND`; the signal's reason on abort. */
export async function untilEnded(input: TimelineInput): Promise<ThreadStatus> {
  const { database, wakeups, threadId, signal } = input;
  for (;;) {
    signal.throwIfAborted();
    const watch = wakeups.watch("changed");
    const thread = await loadThread(database, threadId);
    if (thread === undefined) throw unknownThread(threadId);
    if (isEnded(thread.status)) {
      watch.cancel();
      return thread.status;
    }
    await watch.until(input.pollIntervalMs, signal);
  }
}

/** @internal */
export function unknownThread(threadId: string): ThreadError {
  return new ThreadError("THREAD_NOT_FOUND", "There is no such thread", {
    facts: { threadId },
    remedy: "Start it with cs.start(graph, input, { threadId }).",
  });
}
