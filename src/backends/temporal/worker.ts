import { setTimeout as delay } from "node:timers/promises";
import type { BackendHost, BackendWorker } from "../../backend.ts";
import type { ExecutionIntent } from "../../intent.ts";
import { Dispatches } from "../dispatches.ts";
import { Link } from "./link.ts";
import type { TemporalSettings } from "./options.ts";
import { Relay } from "./relay.ts";
import { TaskQueueWorker } from "./task-queue-worker.ts";

/** What `setTimeout` can count to. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * The Temporal backend, bound to an outbox: relays what is due to workflows, and polls their task
 * queue in this process, unless workers of their own do.
 */
export class TemporalBackendWorker implements BackendWorker {
  readonly #host: BackendHost;
  readonly #settings: TemporalSettings;
  readonly #dispatches: Dispatches;
  readonly #link: Link;
  readonly #relay: Relay;
  readonly #queue: TaskQueueWorker;
  readonly #closing = new AbortController();
  readonly #telling = new Set<Promise<void>>();

  constructor(host: BackendHost, { name, settings }: { readonly name: string; readonly settings: TemporalSettings }) {
    const onProgress = () => host.wakeups.wake("changed");
    this.#host = host;
    this.#settings = settings;
    this.#dispatches = new Dispatches(host, name);
    this.#link = new Link(settings);
    this.#relay = new Relay({ host, backend: name, taskQueue: settings.taskQueue });
    this.#queue = new TaskQueueWorker({
      ...{ host, settings, link: this.#link },
      activities: { backend: name, dispatches: this.#dispatches, closing: this.#closing.signal, onProgress },
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    await this.#whilePolling(async () => {
      const cancellations = this.#dispatches.watchCancellations(signal);
      while (!signal.aborted) {
        const watch = this.#host.wakeups.watch("runnable");
        const handed = await this.#round(this.#host.leaseMs);
        if (signal.aborted || handed.length > 0) watch.cancel();
        else await watch.until(this.#host.pollIntervalMs, signal);
      }
      await cancellations;
    });
  }

  async tick(): Promise<number> {
    let handed = await this.#round(0);
    if (handed.length === 0) return 0;
    return this.#whilePolling(async () => {
      let total = 0;
      while (handed.length > 0) {
        total += handed.length;
        if (this.#settings.worker) await this.#movedOn(handed);
        handed = await this.#round(0);
      }
      return total;
    });
  }

  released(intent: ExecutionIntent): void {
    this.#dispatches.release(intent.id);
    // Only to be told sooner: its workflow looks at the row by itself, too.
    const telling = this.#link
      .get()
      .then(({ client }) => this.#relay.tell(client, intent.id))
      .catch(this.#host.onError)
      .finally(() => this.#telling.delete(telling));
    this.#telling.add(telling);
  }

  async drain(timeoutMs: number): Promise<void> {
    this.#closing.abort();
    const stop = new AbortController();
    const late = delay(Math.min(timeoutMs, LONGEST_TIMER_MS), undefined, { signal: stop.signal }).catch(() => {});
    const stopped = this.#queue.stop();
    await Promise.race([Promise.all([stopped, ...this.#telling]), late]);
    stop.abort();
    this.#dispatches.abandon();
    await stopped;
    await this.#link.close();
  }

  #whilePolling<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.#settings.worker ? this.#queue.during(work) : work();
  }

  async #round(graceMs: number): Promise<string[]> {
    if (this.#closing.signal.aborted) return [];
    try {
      const { client } = await this.#link.get();
      return await this.#relay.round(client, { graceMs });
    } catch (error) {
      this.#host.onError(error);
      return [];
    }
  }

  /** Resolves when nothing more is to be done with these for now, or this process closes. */
  async #movedOn(ids: readonly string[]): Promise<void> {
    while (!this.#closing.signal.aborted) {
      const watch = this.#host.wakeups.watch("changed", "ready");
      const underWay = await this.#relay.underWay(ids);
      if (underWay.length === 0) return watch.cancel();
      await watch.until(this.#host.pollIntervalMs, this.#closing.signal);
    }
  }
}
