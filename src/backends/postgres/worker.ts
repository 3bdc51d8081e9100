import { setTimeout as delay } from "node:timers/promises";
import type { BackendHost, BackendWorker } from "../../backend.ts";
import { claimIntents, rescueIntents, type Settlement } from "../../database/claims.ts";
import { type NextWork, nextWork } from "../../database/next-work.ts";
import type { ExecutionIntent } from "../../intent.ts";
import { Dispatches } from "../dispatches.ts";
import { inquirable } from "../inquiry.ts";
import { pastRefused } from "../past-refused.ts";
import { inquire } from "./inquire.ts";

export interface WorkerOptions {
  readonly name: string;
  readonly concurrency: number;
}

/** What `setTimeout` can count to. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * The embedded worker: claims batches, runs their handlers side by side, keeps their leases alive and
 * records how they ended. Several processes share the work through the rows alone.
 */
export class PostgresWorker implements BackendWorker {
  readonly #host: BackendHost;
  readonly #options: WorkerOptions;
  readonly #dispatches: Dispatches;
  #slotFreed: () => void = () => {};
  readonly #inquiries = new Set<Promise<void>>();
  /** Aborts inquiries when the worker closes: they have no effect and can be repeated. */
  readonly #closing = new AbortController();
  #claiming: Promise<unknown> | undefined;
  /** When to look for lost leases and open questions again: a moment of this process's own clock. */
  #attendAt = 0;
  #stopped = false;
  /** What a claim still brings then is not begun: its lease runs out, and another process takes it. */
  #abandoned = false;

  constructor(host: BackendHost, options: WorkerOptions) {
    this.#host = host;
    this.#options = options;
    this.#dispatches = new Dispatches(host, options.name, () => this.#slotFreed());
  }

  async run(signal: AbortSignal): Promise<void> {
    const cancellations = this.#dispatches.watchCancellations(signal);
    while (!signal.aborted) {
      const watch = this.#host.wakeups.watch("runnable");
      this.#slotFreed = () => watch.wake();
      let waitMs = this.#host.pollIntervalMs;
      try {
        if (performance.now() >= this.#attendAt) await this.#attend();
        await this.#claim();
        // Who was woken meanwhile looks again at once, and needs not ask how long to wait.
        if (!watch.isWoken) waitMs = await this.#idleMs();
      } catch (error) {
        this.#host.onError(error);
      }
      if (signal.aborted) watch.cancel();
      else await watch.until(waitMs, signal);
    }
    await cancellations;
    await this.#settled();
  }

  /** Takes over what dead workers held, and asks providers: not in every round, only when some of it is due. */
  async #attend(): Promise<void> {
    this.#attendAt = performance.now() + this.#host.pollIntervalMs;
    await this.#rescue();
    await this.#inquire();
  }

  /** How long there is nothing to do. A slot that becomes free ends the wait as well, so kinds without one do not count. */
  async #idleMs(): Promise<number> {
    const { startInMs, attendInMs } = await this.#nextWork();
    if (attendInMs !== undefined) this.#attendAt = Math.min(this.#attendAt, performance.now() + attendInMs);
    return Math.min(
      this.#host.pollIntervalMs,
      this.#attendAt - performance.now(),
      startInMs ?? Number.POSITIVE_INFINITY,
    );
  }

  async tick(): Promise<number> {
    for (let total = 0; ; ) {
      // Claimed last: once a handler has been called, this round asks the database for nothing more.
      const done = (await this.#rescue()) + (await this.#inquire()) + (await this.#claim());
      await this.#settled();
      total += done;
      if (done === 0) return total;
    }
  }

  released(intent: ExecutionIntent): void {
    this.#dispatches.release(intent.id);
  }

  async drain(timeoutMs: number): Promise<void> {
    this.#stopped = true;
    this.#closing.abort();
    const stop = new AbortController();
    const late = delay(Math.min(timeoutMs, LONGEST_TIMER_MS), undefined, { signal: stop.signal }).catch(() => {});
    await Promise.race([this.#settled(), late]);
    stop.abort();
    this.#abandoned = true;
    this.#dispatches.abandon();
  }

  /** Resolves when nothing runs any more. */
  async #settled(): Promise<void> {
    while (this.#dispatches.size + this.#inquiries.size > 0 || this.#claiming !== undefined) {
      await Promise.all([this.#claiming?.catch(() => {}), ...this.#inquiries, this.#dispatches.ended()]);
    }
  }

  get #freeSlots(): number {
    return this.#options.concurrency - this.#dispatches.handling();
  }

  /** How many more of each kind could start now. */
  #kinds(): { readonly workflowKey: string; readonly slots: number }[] {
    return [...this.#host.commitments.values()]
      .map(({ workflowKey, maxConcurrency }) => ({
        workflowKey,
        slots: Math.min(this.#freeSlots, maxConcurrency - this.#dispatches.handling(workflowKey)),
      }))
      .filter((kind) => kind.slots > 0);
  }

  async #claim(): Promise<number> {
    const limit = this.#freeSlots;
    const kinds = this.#kinds();
    if (this.#stopped || kinds.length === 0) return 0;
    const { database, workerId: worker, leaseMs } = this.#host;
    // failpoint: claim.before
    const claiming = pastRefused(this.#host, () =>
      claimIntents(database, { backend: this.#options.name, worker, kinds, limit, leaseMs }),
    );
    this.#claiming = claiming;
    try {
      const intents = await claiming;
      // failpoint: claim.after
      if (!this.#abandoned) for (const intent of intents) this.#start(intent);
      return intents.length;
    } finally {
      this.#claiming = undefined;
    }
  }

  #start(intent: ExecutionIntent): void {
    this.#dispatches
      .begin(intent)
      .then((settlement) => this.#attendSoon(settlement))
      .catch((error) => this.#host.onError(error));
  }

  /** Its provider may have to be asked, sooner than was known until now. */
  #attendSoon(settlement: Settlement | undefined): void {
    if (settlement?.status === "unknown" || settlement?.status === "awaiting_external") this.#attendAt = 0;
  }

  async #rescue(): Promise<number> {
    const { database, workerId, commitments } = this.#host;
    const kinds = [...commitments.values()].map(({ workflowKey, retry }) => ({
      workflowKey,
      maxAttempts: retry.maxAttempts,
    }));
    const rescue = { backend: this.#options.name, worker: workerId, kinds };
    return pastRefused(this.#host, () => rescueIntents(database, rescue));
  }

  /** Begins inquiries; a provider that takes its time to answer holds nothing else up. */
  async #inquire(): Promise<number> {
    if (this.#stopped) return 0;
    const dispatches = this.#dispatches;
    const begun = await inquire(this.#host, this.#options.name, (s) => dispatches.settle(s), this.#closing.signal);
    for (const inquiry of begun) {
      const tracked = inquiry.catch(this.#host.onError).finally(() => this.#inquiries.delete(tracked));
      this.#inquiries.add(tracked);
    }
    return begun.length;
  }

  async #nextWork(): Promise<NextWork> {
    return nextWork(this.#host.database, {
      backend: this.#options.name,
      workflowKeys: [...this.#host.commitments.keys()],
      startable: this.#kinds().map((kind) => kind.workflowKey),
      reconcilable: inquirable(this.#host, "unknown"),
      pollable: inquirable(this.#host, "awaiting_external"),
    });
  }
}
