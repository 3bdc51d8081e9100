import type { BackendHost, BackendWorker } from "../../backend.ts";
import type { ExecutionIntent } from "../../intent.ts";
import { Carrier } from "./carrier.ts";
import type { TemporalSettings } from "./options.ts";
import { Relay } from "./relay.ts";

/**
 * The Temporal backend, bound to an outbox: relays what is due to workflows, and polls their task
 * queue in this process, unless workers of their own do.
 */
export class TemporalBackendWorker implements BackendWorker {
  readonly #host: BackendHost;
  readonly #settings: TemporalSettings;
  readonly #carrier: Carrier;
  readonly #relay: Relay;
  readonly #telling = new Set<Promise<void>>();

  constructor(host: BackendHost, settings: TemporalSettings) {
    this.#host = host;
    this.#settings = settings;
    this.#carrier = new Carrier(host, settings);
    this.#relay = new Relay(host, settings);
  }

  async run(signal: AbortSignal): Promise<void> {
    await this.#whilePolling(async () => {
      const cancellations = this.#carrier.watchCancellations(signal);
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
    this.#carrier.release(intent.id);
    if (intent.status === "awaiting_decision") return;
    // Only to be told sooner: its workflow looks at the row by itself, too.
    const telling = this.#carrier.link
      .get()
      .then(({ client }) => this.#relay.tell(client, intent.id))
      .catch(this.#host.onError)
      .finally(() => this.#telling.delete(telling));
    this.#telling.add(telling);
  }

  async drain(timeoutMs: number): Promise<void> {
    await this.#carrier.close({ timeoutMs, after: this.#telling });
  }

  #whilePolling<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.#settings.worker ? this.#carrier.whilePolling(work) : work();
  }

  async #round(graceMs: number): Promise<string[]> {
    if (this.#carrier.closing.aborted) return [];
    try {
      const { client } = await this.#carrier.link.get();
      return await this.#relay.round(client, { graceMs });
    } catch (error) {
      this.#host.onError(error);
      return [];
    }
  }

  /** Resolves when nothing more is to be done with these for now, or this process closes. */
  async #movedOn(ids: readonly string[]): Promise<void> {
    const { closing } = this.#carrier;
    while (!closing.aborted) {
      const watch = this.#host.wakeups.watch("changed", "ready");
      const underWay = await this.#relay.underWay(ids);
      if (underWay.length === 0) return watch.cancel();
      await watch.until(this.#host.pollIntervalMs, closing);
    }
  }
}
