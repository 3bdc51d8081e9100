import { setTimeout as delay } from "node:timers/promises";
import type { BackendHost } from "../backend.ts";
import { Batcher } from "../database/batcher.ts";
import { renewLeases, type Settlement, settleIntents } from "../database/claims.ts";
import { loadIntent } from "../database/intents.ts";
import { LeaseLostError } from "../errors.ts";
import type { ExecutionIntent } from "../intent.ts";
import { type Dispatch, execute } from "./execute.ts";

/** A dispatch that is under way in this process. */
interface Running {
  readonly intent: ExecutionIntent;
  /** Ends it: the lease is gone, or this process closes. */
  readonly abort: AbortController;
  /** Asks its handler to stop, and still hears it. */
  readonly cancel: AbortController;
  readonly done: Promise<Settlement | undefined>;
  /** Whether its handler has yet to end; then only its record is missing, which takes no slot. */
  handling: boolean;
}

/** A claimed intent, and what stops its handler. */
type Held = Required<Pick<Dispatch, "intent" | "signal" | "cancelled">>;

/** How often a settlement is tried again while the database is away. */
const SETTLE_RETRY_MS = 200;

/**
 * The claimed intents that this process is carrying out: runs their handlers side by side, keeps
 * their leases alive, tells a handler when its lease is gone or its intent cancelled, and records how
 * each ended. Whoever claims, a poll of ours or a task of Temporal's, hands them over to this.
 */
export class Dispatches {
  readonly #host: BackendHost;
  readonly #running = new Map<string, Running>();
  readonly #settlements: Batcher<Settlement, boolean>;
  readonly #onHandled: () => void;
  #heartbeat: NodeJS.Timeout | undefined;
  #renewing = false;

  /** @param onHandled is told whenever a handler has ended, and so a slot is free. */
  constructor(host: BackendHost, backend: string, onHandled: () => void = () => {}) {
    this.#host = host;
    this.#onHandled = onHandled;
    this.#settlements = new Batcher(async (settlements) => {
      const { database, workerId: worker } = host;
      // failpoint: settle.before
      const counted = await settleIntents(database, { backend, worker, settlements });
      // failpoint: settle.after
      return counted;
    });
  }

  get size(): number {
    return this.#running.size;
  }

  /** How many handlers run now, of one kind or of all. */
  handling(workflowKey?: string): number {
    let count = 0;
    for (const { intent, handling } of this.#running.values()) {
      if (handling && (workflowKey === undefined || intent.workflowKey === workflowKey)) count++;
    }
    return count;
  }

  /**
   * Carries out an intent that was claimed just now.
   * @returns what was recorded; nothing when another holds the intent by then, or this process closes.
   * @throws whatever kept it from being recorded for as long as the lease lasts.
   */
  begin(intent: ExecutionIntent): Promise<Settlement | undefined> {
    // As after a long pause of this process: its own lease ran out, and it has taken the intent over from itself.
    this.release(intent.id);
    const abort = new AbortController();
    const cancel = new AbortController();
    const handled = (): void => {
      if (!running.handling) return;
      running.handling = false;
      this.#onHandled();
    };
    const done = this.#carryOut({ intent, signal: abort.signal, cancelled: cancel.signal }, handled).finally(() => {
      handled();
      // A handler that was left behind may end after a later one of the same intent has begun.
      if (this.#running.get(intent.id)?.abort === abort) this.#running.delete(intent.id);
    });
    const running: Running = { intent, abort, cancel, done, handling: true };
    this.#running.set(intent.id, running);
    this.#heartbeat ??= setInterval(() => void this.#beat(), this.#host.leaseMs / 3).unref();
    return done;
  }

  /** Records what an inquiry found out, or what a handler came to. False when the lease has moved on. */
  settle(settlement: Settlement): Promise<boolean> {
    return this.#settlements.add(settlement);
  }

  /** The intent was ended elsewhere: its handler is told, and what it still answers counts for nothing. */
  release(intentId: string): void {
    this.#running.get(intentId)?.abort.abort(new LeaseLostError({ intentId }));
  }

  /** Tells every handler that this process closes; their leases run out. */
  abandon(): void {
    for (const { intent, abort } of this.#running.values()) {
      abort.abort(new LeaseLostError({ intentId: intent.id, reason: "closing" }));
    }
    this.#rest();
  }

  /** Resolves when those that run now have ended, well or not. */
  async ended(): Promise<void> {
    await Promise.allSettled([...this.#running.values()].map(({ done }) => done));
  }

  /** Extends the leases, and learns which are lost and what is to be cancelled. */
  async #renew(): Promise<void> {
    if (this.#running.size === 0) {
      this.#rest();
      return;
    }
    const running = [...this.#running.values()];
    const leases = running.map(({ intent }) => ({ id: intent.id, leaseToken: intent.leaseToken }));
    try {
      // failpoint: renewal.before
      const renewed = await renewLeases(this.#host.database, { leases, leaseMs: this.#host.leaseMs });
      // failpoint: renewal.after
      const held = new Map(renewed.map((lease) => [lease.id, lease.cancelRequested]));
      for (const { intent, abort, cancel } of running) {
        const cancelRequested = held.get(intent.id);
        if (cancelRequested === undefined) abort.abort(new LeaseLostError({ intentId: intent.id }));
        else if (cancelRequested) cancel.abort();
      }
    } catch (error) {
      this.#host.onError(error);
    }
  }

  /** Looks for cancellations whenever one was notified, until the signal aborts. */
  async watchCancellations(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#host.wakeups.watch("cancel").until(this.#host.leaseMs, signal);
      if (this.#running.size > 0 && !signal.aborted) await this.#renew();
    }
  }

  /** One renewal at a time: those that wait for the same lock would take the pool's connections one by one. */
  async #beat(): Promise<void> {
    if (this.#renewing) return;
    this.#renewing = true;
    await this.#renew().finally(() => {
      this.#renewing = false;
    });
  }

  #rest(): void {
    clearInterval(this.#heartbeat);
    this.#heartbeat = undefined;
  }

  async #carryOut(held: Held, handled: () => void): Promise<Settlement | undefined> {
    const { intent, signal } = held;
    const commitment = this.#host.commitments.get(intent.workflowKey);
    if (commitment === undefined) return undefined;
    const effect = intent.compensates === null ? intent : await loadIntent(this.#host.database, intent.compensates);
    if (effect === undefined) return undefined;
    const { maxPayloadBytes } = this.#host;
    // failpoint: call.before
    const settlement = await execute({ ...held, effect, commitment, maxPayloadBytes }).finally(handled);
    // failpoint: response.after
    if (signal.aborted) return undefined;
    await this.#record(settlement);
    return settlement;
  }

  /** Keeps trying while the lease lasts: the effect is done, only its record is missing. */
  async #record(settlement: Settlement): Promise<void> {
    for (const until = Date.now() + this.#host.leaseMs; ; ) {
      try {
        const counted = await this.settle(settlement);
        if (counted) return;
        throw new LeaseLostError({ intentId: settlement.id, leaseToken: settlement.leaseToken });
      } catch (error) {
        if (error instanceof LeaseLostError || Date.now() >= until) throw error;
        this.#host.onError(error);
        await delay(SETTLE_RETRY_MS);
      }
    }
  }
}
