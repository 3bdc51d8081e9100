import { setTimeout as delay } from "node:timers/promises";
import type { BackendHost, BackendWorker } from "../../backend.ts";
import { Batcher } from "../../database/batcher.ts";
import {
  claimIntents,
  type NextWork,
  nextWork,
  renewLeases,
  rescueIntents,
  type Settlement,
  settleIntents,
} from "../../database/claims.ts";
import { loadIntent } from "../../database/intents.ts";
import { refusedMove, setAside } from "../../database/refused.ts";
import { BoundaryError, LeaseLostError } from "../../errors.ts";
import type { ExecutionIntent } from "../../intent.ts";
import { CANCELLED, execute } from "./execute.ts";
import { inquirable, inquire } from "./inquire.ts";

export interface WorkerOptions {
  readonly name: string;
  readonly concurrency: number;
}

/** A dispatch that is under way in this process. */
interface Running {
  readonly intent: ExecutionIntent;
  readonly abort: AbortController;
  readonly done: Promise<void>;
}

/** What `setTimeout` can count to. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** How often a settlement is tried again while the database is away. */
const SETTLE_RETRY_MS = 200;

/**
 * The embedded worker: claims batches, runs their handlers side by side, keeps their leases alive and
 * records how they ended. Several processes share the work through the rows alone.
 */
export class PostgresWorker implements BackendWorker {
  readonly #host: BackendHost;
  readonly #options: WorkerOptions;
  readonly #running = new Map<string, Running>();
  /** Each resolves to whether it counted: false when the lease has moved on and nothing was written. */
  readonly #settlements: Batcher<Settlement, boolean>;
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
  #heartbeat: NodeJS.Timeout | undefined;

  constructor(host: BackendHost, options: WorkerOptions) {
    this.#host = host;
    this.#options = options;
    this.#settlements = new Batcher(async (settlements) => {
      const { database, workerId: worker } = host;
      // failpoint: settle.before
      const counted = await settleIntents(database, { backend: options.name, worker, settlements });
      // failpoint: settle.after
      return settlements.map(({ id }) => counted.has(id));
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const cancellations = this.#watchCancellations(signal);
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
    this.#running.get(intent.id)?.abort.abort(new LeaseLostError({ intentId: intent.id }));
  }

  async drain(timeoutMs: number): Promise<void> {
    this.#stopped = true;
    this.#closing.abort();
    const stop = new AbortController();
    const late = delay(Math.min(timeoutMs, LONGEST_TIMER_MS), undefined, { signal: stop.signal }).catch(() => {});
    await Promise.race([this.#settled(), late]);
    stop.abort();
    this.#abandoned = true;
    for (const { intent, abort } of this.#running.values()) {
      abort.abort(new LeaseLostError({ intentId: intent.id, reason: "closing" }));
    }
    clearInterval(this.#heartbeat);
    this.#heartbeat = undefined;
  }

  /** Resolves when nothing runs any more. */
  async #settled(): Promise<void> {
    while (this.#running.size + this.#inquiries.size > 0 || this.#claiming !== undefined) {
      await Promise.all([
        this.#claiming?.catch(() => {}),
        ...this.#inquiries,
        ...[...this.#running.values()].map((running) => running.done),
      ]);
    }
  }

  get #freeSlots(): number {
    return this.#options.concurrency - this.#running.size;
  }

  /** How many more of each kind could start now. */
  #kinds(): { readonly workflowKey: string; readonly slots: number }[] {
    return [...this.#host.commitments.values()]
      .map(({ workflowKey, maxConcurrency }) => ({
        workflowKey,
        slots: Math.min(this.#freeSlots, maxConcurrency - this.#runningOf(workflowKey)),
      }))
      .filter((kind) => kind.slots > 0);
  }

  async #claim(): Promise<number> {
    const limit = this.#freeSlots;
    const kinds = this.#kinds();
    if (this.#stopped || kinds.length === 0) return 0;
    const { database, workerId: worker, leaseMs } = this.#host;
    // failpoint: claim.before
    const claiming = this.#pastRefused(() =>
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

  #runningOf(workflowKey: string): number {
    let count = 0;
    for (const { intent } of this.#running.values()) if (intent.workflowKey === workflowKey) count++;
    return count;
  }

  #start(intent: ExecutionIntent): void {
    // As after a long pause of this process: its own lease ran out, and it has taken the intent over from itself.
    this.released(intent);
    const abort = new AbortController();
    const done = this.#carryOut(intent, abort.signal)
      .catch((error) => this.#host.onError(error))
      .finally(() => {
        // A handler that was left behind may end after a later one of the same intent has begun.
        if (this.#running.get(intent.id)?.abort === abort) this.#running.delete(intent.id);
        this.#slotFreed();
      });
    this.#running.set(intent.id, { intent, abort, done });
    this.#heartbeat ??= setInterval(() => void this.#renew(), this.#host.leaseMs / 3).unref();
  }

  async #carryOut(intent: ExecutionIntent, signal: AbortSignal): Promise<void> {
    const commitment = this.#host.commitments.get(intent.workflowKey);
    if (commitment === undefined) return;
    const effect = intent.compensates === null ? intent : await loadIntent(this.#host.database, intent.compensates);
    if (effect === undefined) return;
    const { maxPayloadBytes } = this.#host;
    // failpoint: call.before
    const settlement = await execute({ intent, effect, commitment, maxPayloadBytes, signal });
    // failpoint: response.after
    if (signal.aborted && signal.reason !== CANCELLED) return;
    await this.#settle(settlement);
  }

  /** Keeps trying while the lease lasts: the effect is done, only its record is missing. */
  async #settle(settlement: Settlement): Promise<void> {
    for (const until = Date.now() + this.#host.leaseMs; ; ) {
      try {
        const counted = await this.#settlements.add(settlement);
        // Its provider may have to be asked, sooner than was known until now.
        if (settlement.status === "unknown" || settlement.status === "awaiting_external") this.#attendAt = 0;
        if (counted) return;
        throw new LeaseLostError({ intentId: settlement.id, leaseToken: settlement.leaseToken });
      } catch (error) {
        if (error instanceof LeaseLostError || Date.now() >= until) throw error;
        this.#host.onError(error);
        await delay(SETTLE_RETRY_MS);
      }
    }
  }

  async #renew(): Promise<void> {
    if (this.#running.size === 0) {
      clearInterval(this.#heartbeat);
      this.#heartbeat = undefined;
      return;
    }
    const running = [...this.#running.values()];
    const leases = running.map(({ intent }) => ({ id: intent.id, leaseToken: intent.leaseToken }));
    try {
      // failpoint: renewal.before
      const renewed = await renewLeases(this.#host.database, { leases, leaseMs: this.#host.leaseMs });
      // failpoint: renewal.after
      const held = new Map(renewed.map((lease) => [lease.id, lease.cancelRequested]));
      for (const { intent, abort } of running) {
        const cancelRequested = held.get(intent.id);
        if (cancelRequested === undefined) abort.abort(new LeaseLostError({ intentId: intent.id }));
        else if (cancelRequested) abort.abort(CANCELLED);
      }
    } catch (error) {
      this.#host.onError(error);
    }
  }

  async #watchCancellations(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#host.wakeups.watch("cancel").until(this.#host.leaseMs, signal);
      if (this.#running.size > 0 && !signal.aborted) await this.#renew();
    }
  }

  async #rescue(): Promise<number> {
    const { database, workerId, commitments } = this.#host;
    const kinds = [...commitments.values()].map(({ workflowKey, retry }) => ({
      workflowKey,
      maxAttempts: retry.maxAttempts,
    }));
    return this.#pastRefused(() => rescueIntents(database, { backend: this.#options.name, worker: workerId, kinds }));
  }

  /**
   * Moves a batch. A row that somebody has changed past the guards makes the database refuse all of it:
   * that row is set aside and reported, so that it keeps nobody else's intents from running.
   */
  async #pastRefused<Result>(move: () => Promise<Result>): Promise<Result> {
    const { database, workerId: worker, onError } = this.#host;
    for (;;) {
      try {
        return await move();
      } catch (error) {
        const refused = refusedMove(error);
        if (refused === undefined || !(await setAside(database, { intentId: refused.intentId, worker }))) throw error;
        onError(
          new BoundaryError("An intent is not what was approved, and was set aside: it will not run", {
            facts: { ...refused },
            remedy:
              "It was changed past Countersign, by SQL. Find out who can write there, and verify the audit trail.",
            cause: error,
          }),
        );
      }
    }
  }

  /** Begins inquiries; a provider that takes its time to answer holds nothing else up. */
  async #inquire(): Promise<number> {
    if (this.#stopped) return 0;
    const settle = (settlement: Settlement): Promise<boolean> => this.#settlements.add(settlement);
    const begun = await inquire(this.#host, this.#options.name, settle, this.#closing.signal);
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
