import { setTimeout as delay } from "node:timers/promises";
import type { BackendHost } from "../../backend.ts";
import { Dispatches } from "../dispatches.ts";
import { Link } from "./link.ts";
import type { TemporalSettings } from "./options.ts";
import { TaskQueueWorker } from "./task-queue-worker.ts";

/** What `setTimeout` can count to. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * The part of a process that carries out what Temporal gives it: its link, the poller of its task
 * queue, and the dispatches that run. Used by `work()`, and alone by a worker process.
 */
export class Carrier {
  readonly link: Link;
  readonly #dispatches: Dispatches;
  readonly #queue: TaskQueueWorker;
  readonly #closing = new AbortController();

  constructor(host: BackendHost, settings: TemporalSettings) {
    const backend = settings.name;
    const onProgress = () => host.wakeups.wake("changed");
    this.link = new Link(settings);
    this.#dispatches = new Dispatches(host, backend);
    const activities = { host, backend, dispatches: this.#dispatches, closing: this.closing, onProgress };
    this.#queue = new TaskQueueWorker({ host, settings, link: this.link, activities });
  }

  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** Polls the task queue during the work; what has begun is finished before it resolves. */
  whilePolling<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.#queue.during(work);
  }

  /** Tells handlers of cancellations that other processes ask for, until the signal aborts. */
  watchCancellations(signal: AbortSignal): Promise<void> {
    return this.#dispatches.watchCancellations(signal);
  }

  /** The intent was ended elsewhere. */
  release(intentId: string): void {
    this.#dispatches.release(intentId);
  }

  /** Waits for running handlers, at most this long; then aborts their signals and lets the leases run out. */
  async close({ timeoutMs, after = [] }: { readonly timeoutMs: number; readonly after?: Iterable<Promise<void>> }) {
    this.#closing.abort();
    const stop = new AbortController();
    const late = delay(Math.min(timeoutMs, LONGEST_TIMER_MS), undefined, { signal: stop.signal }).catch(() => {});
    const stopped = this.#queue.stop();
    await Promise.race([Promise.all([stopped, ...after]), late]);
    stop.abort();
    this.#dispatches.abandon();
    await stopped;
    await this.link.close();
  }
}
