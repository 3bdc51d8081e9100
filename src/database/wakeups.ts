import type { Database, Subscription } from "./client.ts";

/**
 * What a notification says: intents became runnable, threads are ready, a thread has ended, there is
 * something for the sweep (a deadline, a timer, a compensation), a cancellation, or any change.
 */
export type Topic = "runnable" | "ready" | "ended" | "due" | "cancel" | "changed";

const TOPICS: readonly Topic[] = ["runnable", "ready", "ended", "due", "cancel", "changed"];

/**
 * The one LISTEN connection of a process, and who waits for what. A notification is a hint, never
 * the news itself: who is woken looks at the tables, and also looks from time to time without one.
 */
export class Wakeups {
  readonly #waiters = new Map<Topic, Set<() => void>>(TOPICS.map((topic) => [topic, new Set()]));
  #subscription: Subscription | undefined;

  /** Starts to listen on the schema's channel. */
  async open(database: Database): Promise<void> {
    this.#subscription = await database.listen(
      database.schema,
      (topic) => this.wake(topic as Topic),
      () => {
        for (const topic of TOPICS) this.wake(topic);
      },
    );
  }

  wake(topic: Topic): void {
    const waiters = this.#waiters.get(topic);
    if (waiters === undefined || waiters.size === 0) return;
    const woken = [...waiters];
    waiters.clear();
    for (const resume of woken) resume();
  }

  /**
   * Starts to watch now, so that a wake-up between looking at the tables and waiting is not missed:
   * watch, look, then `await watch.until(…)`.
   */
  watch(...topics: readonly Topic[]): Watch {
    return new Watch(this.#waiters, topics);
  }

  async close(): Promise<void> {
    await this.#subscription?.close();
    for (const topic of TOPICS) this.wake(topic);
  }
}

/** One look-then-wait. */
export class Watch {
  readonly #woken: Promise<void>;
  #isWoken = false;
  #resume: () => void = () => {};
  readonly #forget: () => void;

  constructor(waiters: ReadonlyMap<Topic, Set<() => void>>, topics: readonly Topic[]) {
    this.#woken = new Promise((resolve) => {
      this.#resume = () => {
        this.#isWoken = true;
        resolve();
      };
    });
    const resume = this.#resume;
    for (const topic of topics) waiters.get(topic)?.add(resume);
    this.#forget = () => {
      for (const topic of topics) waiters.get(topic)?.delete(resume);
    };
  }

  /** Whether there was a wake-up already: to wait would return at once. */
  get isWoken(): boolean {
    return this.#isWoken;
  }

  /** Ends this wait from inside the process, without a notification. */
  wake(): void {
    this.#resume();
  }

  /** Resolves with the next wake-up, when the time is over, or on abort, whichever comes first. */
  async until(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const over = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, Math.max(0, timeoutMs));
    });
    const aborted = () => this.#resume();
    signal?.addEventListener("abort", aborted, { once: true });
    if (signal?.aborted) this.#resume();
    try {
      await Promise.race([this.#woken, over]);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", aborted);
      this.#forget();
    }
  }

  /** Stops to watch without having waited. */
  cancel(): void {
    this.#forget();
  }
}
