import type { Database } from "../database/client.ts";
import { loadThreadEnds, type ThreadEnd, type ThreadStatus } from "../database/threads.ts";

/** A thread in one of these goes on only if somebody asks for it. */
const ENDED: readonly ThreadStatus[] = [
  "completed",
  "failed",
  "lost",
  "cancelled",
  "compensated",
  "compensation_failed",
];

/** Whether a thread goes on only if somebody asks for it. */
export function isEnded(status: ThreadStatus): boolean {
  return ENDED.includes(status);
}

/**
 * Looks up how threads stand, for those who wait for their ends. What is asked for in one tick is one
 * statement: a notification wakes everybody who waits, and each asking alone would be a storm.
 */
export class ThreadEnds {
  readonly #database: Database;
  #asked: { readonly ids: Set<string>; readonly found: Promise<ReadonlyMap<string, ThreadEnd>> } | undefined;

  constructor(database: Database) {
    this.#database = database;
  }

  /** How the thread stands; `undefined` when there is none. */
  async find(threadId: string): Promise<ThreadEnd | undefined> {
    this.#asked ??= this.#ask();
    this.#asked.ids.add(threadId);
    return (await this.#asked.found).get(threadId);
  }

  #ask() {
    const ids = new Set<string>();
    const found = new Promise<void>((resolve) => setImmediate(resolve)).then(async () => {
      this.#asked = undefined;
      const threads = await loadThreadEnds(this.#database, { threadIds: [...ids], ended: ENDED });
      return new Map(threads.map((thread) => [thread.thread_id, thread]));
    });
    return { ids, found };
  }
}
