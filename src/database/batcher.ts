import { isCountersignError } from "../errors.ts";

interface Queued<Item, Result> {
  readonly item: Item;
  resolve(result: Result): void;
  reject(reason: unknown): void;
}

/** Collects what is asked for in one tick, and while the last batch is on its way, into one statement and one commit. */
export class Batcher<Item, Result> {
  readonly #run: (items: readonly Item[]) => Promise<readonly Result[]>;
  #queue: Queued<Item, Result>[] = [];
  #sending = false;

  /** @param run does one batch and returns a result for each item, in their order. */
  constructor(run: (items: readonly Item[]) => Promise<readonly Result[]>) {
    this.#run = run;
  }

  /**
   * Resolves when the batch that it went with has committed. One that the database refuses fails alone;
   * when the database cannot be used, the whole batch fails, and nobody knows whether it was committed.
   */
  add(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ item, resolve, reject });
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

  async #send(batch: readonly Queued<Item, Result>[]): Promise<void> {
    try {
      const results = await this.#run(batch.map(({ item }) => item));
      batch.forEach((queued, index) => {
        queued.resolve(results[index] as Result);
      });
    } catch (error) {
      // The commit may have been made and its answer lost: sent again, what is recorded looks like somebody else's.
      const inDoubt = isCountersignError(error) && error.code === "DATABASE_UNAVAILABLE";
      if (batch.length === 1 || inDoubt) {
        for (const queued of batch) queued.reject(error);
        return;
      }
      // One that the database refuses must not keep the others from being recorded.
      for (const queued of batch) await this.#send([queued]);
    }
  }
}
