import { type Settlement, settleIntents } from "../../database/claims.ts";
import type { Database } from "../../database/client.ts";

interface QueuedSettlement {
  readonly settlement: Settlement;
  resolve(counted: boolean): void;
  reject(reason: unknown): void;
}

/** Collects what ends in one tick into one statement and one commit. */
export class SettleBatcher {
  readonly #database: Database;
  readonly #backend: string;
  readonly #worker: string;
  #queue: QueuedSettlement[] = [];
  #sending = false;

  constructor(database: Database, backend: string, worker: string) {
    this.#database = database;
    this.#backend = backend;
    this.#worker = worker;
  }

  /** Resolves to whether it counted: false when the lease has moved on and nothing was written. */
  settle(settlement: Settlement): Promise<boolean> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ settlement, resolve, reject });
      this.#schedule();
    });
  }

  #schedule(): void {
    if (this.#sending || this.#queue.length === 0) return;
    this.#sending = true;
    setImmediate(async () => {
      await this.#send(this.#queue.splice(0));
      this.#sending = false;
      this.#schedule();
    });
  }

  async #send(batch: readonly QueuedSettlement[]): Promise<void> {
    try {
      const settlements = batch.map((item) => item.settlement);
      // failpoint: settle.before
      const counted = await settleIntents(this.#database, {
        backend: this.#backend,
        worker: this.#worker,
        settlements,
      });
      // failpoint: settle.after
      for (const { settlement, resolve } of batch) resolve(counted.has(settlement.id));
    } catch (error) {
      if (batch.length === 1) {
        for (const item of batch) item.reject(error);
        return;
      }
      // One that the database refuses must not keep the others from being recorded.
      for (const item of batch) await this.#send([item]);
    }
  }
}
