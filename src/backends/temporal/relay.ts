import type { Client } from "@temporalio/client";
import type { BackendHost } from "../../backend.ts";
import { giveBack, type HandedOver, loadUnderWay, overdueIntents, takeForHandOver } from "../../database/hand-over.ts";
import { inquirable } from "../inquiry.ts";
import type { TemporalSettings } from "./options.ts";
import { Runs } from "./runs.ts";

/** Intents per round; starts that are under way at once. */
const BATCH = 100;

/**
 * Handed over and not claimed yet: what waits beyond this waits in the outbox, where it can still be
 * cancelled for nothing, and not in Temporal's queue.
 */
const MAX_UNCLAIMED = 1_000;

/** Drains the outbox into Temporal: sees to it that each intent that is due has a workflow. */
export class Relay {
  readonly #host: BackendHost;
  readonly #backend: string;
  readonly #runs: Runs;
  /** When an overdue intent was last told of, by this process's clock. */
  readonly #toldAt = new Map<string, number>();

  constructor(host: BackendHost, settings: TemporalSettings) {
    this.#host = host;
    this.#backend = settings.name;
    this.#runs = new Runs({ host, settings });
  }

  /**
   * One round. Returns the intents that it handed over.
   * @param graceMs retries and inquiries are Temporal's own business, until they are overdue by this.
   */
  async round(client: Client, { graceMs }: { readonly graceMs: number }): Promise<string[]> {
    const { database, workerId: owner, leaseMs } = this.#host;
    const backend = this.#backend;
    const kinds = this.#kinds();
    // failpoint: hand-over.before
    const taken = await takeForHandOver(database, {
      ...{ backend, owner, leaseMs, graceMs, limit: BATCH, maxUnclaimed: MAX_UNCLAIMED },
      workflowKeys: kinds.workflowKeys,
    });
    const overdue = await overdueIntents(database, { backend, graceMs, limit: BATCH, ...kinds });
    const handed = [...taken, ...overdue.filter(({ id }) => this.#isToBeTold(id, graceMs))];
    // failpoint: hand-over.within
    await this.#handOver(client, handed);
    // failpoint: hand-over.after
    return handed.map(({ id }) => id);
  }

  /** Tells the workflow of an intent that its row was changed from outside. */
  tell(client: Client, intentId: string): Promise<void> {
    return this.#runs.tell(client, intentId);
  }

  /** Of these, the ones with which something can still be done at once, or is being done. */
  underWay(ids: readonly string[]): Promise<string[]> {
    return loadUnderWay(this.#host.database, { ids, ...this.#kinds() });
  }

  async #handOver(client: Client, intents: readonly HandedOver[]): Promise<void> {
    const started = await Promise.allSettled(intents.map((intent) => this.#runs.ensure(client, intent)));
    const failed = started.flatMap((result, n) => (result.status === "rejected" ? [{ ...result, n }] : []));
    if (failed.length === 0) return;
    const ids = failed.map(({ n }) => (intents[n] as HandedOver).id);
    for (const id of ids) this.#toldAt.delete(id);
    await giveBack(this.#host.database, { ids, owner: this.#host.workerId });
    throw failed[0]?.reason;
  }

  #isToBeTold(id: string, graceMs: number): boolean {
    const now = performance.now();
    const last = this.#toldAt.get(id);
    if (last !== undefined && now - last < graceMs) return false;
    for (const [other, at] of this.#toldAt) if (now - at > graceMs) this.#toldAt.delete(other);
    this.#toldAt.set(id, now);
    return true;
  }

  #kinds() {
    return {
      workflowKeys: [...this.#host.commitments.keys()],
      reconcilable: inquirable(this.#host, "unknown"),
      pollable: inquirable(this.#host, "awaiting_external"),
    };
  }
}
