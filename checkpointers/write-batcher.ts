import type { Database } from "../src/database/client.ts";
import { translateRefusal } from "../src/database/refusals.ts";
import { BoundaryError, LeaseLostError } from "../src/errors.ts";
import type { WriteCall } from "./write-call.ts";
import { writeStatement } from "./write-statement.ts";

/** A call on its way to the database. `sent` is false as long as others can still share its commit. */
export interface WriteTicket {
  readonly done: Promise<void>;
  sent: boolean;
}

interface QueuedCall {
  readonly call: WriteCall;
  readonly ticket: WriteTicket;
  resolve(): void;
  reject(reason: unknown): void;
}

/**
 * Calls in one statement. Above this, another one goes out beside it, so that the threads whose writes
 * are back compute while the database works for the others: 64 threads at once run a third faster than
 * when all of them share one statement (`npm run bench -- concurrent`).
 */
const MAX_CALLS = 48;

/**
 * Collects what is written in one tick, of all threads of this process, into one statement and one
 * commit. The calls of one thread always travel together; each call still fails alone on its fence,
 * and a call whose data the database refuses fails only its own thread.
 */
export class WriteBatcher {
  readonly #database: Database;
  readonly #maxInFlight: number;
  #queue: QueuedCall[] = [];
  #inFlight = 0;
  #scheduled = false;

  constructor(database: Database) {
    this.#database = database;
    this.#maxInFlight = database.kind === "pglite" ? 1 : 3;
  }

  /** Joins the batch that is being collected. */
  write(call: WriteCall): WriteTicket {
    const { promise, resolve, reject } = deferred();
    // Whoever needs the outcome awaits `done`; nobody doing so must not end the process.
    promise.catch(() => {});
    const ticket: WriteTicket = { done: promise, sent: false };
    this.#queue.push({ call, ticket, resolve, reject });
    this.#schedule();
    return ticket;
  }

  #schedule(): void {
    if (this.#scheduled || this.#queue.length === 0 || this.#inFlight >= this.#maxInFlight) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      void this.#send(this.#takeBatch());
      this.#schedule();
    });
  }

  /** Whole threads, the oldest first, up to the limit. */
  #takeBatch(): QueuedCall[] {
    const threads = new Set<string>();
    let calls = 0;
    for (const { call } of this.#queue) {
      if (calls >= MAX_CALLS && !threads.has(call.threadId)) continue;
      threads.add(call.threadId);
      calls++;
    }
    const batch = this.#queue.filter(({ call }) => threads.has(call.threadId));
    this.#queue = this.#queue.filter(({ call }) => !threads.has(call.threadId));
    return batch;
  }

  async #send(batch: readonly QueuedCall[]): Promise<void> {
    const live: QueuedCall[] = [];
    for (const item of batch) {
      item.ticket.sent = true;
      // A pass of which something could not be persisted has failed: none of its tasks may count as done.
      const failure = item.call.drive?.persistenceError;
      if (failure === undefined) live.push(item);
      else item.reject(failure);
    }
    if (live.length === 0) return;
    this.#inFlight++;
    try {
      await this.#write(live);
    } finally {
      this.#inFlight--;
      this.#schedule();
    }
  }

  async #write(batch: readonly QueuedCall[]): Promise<void> {
    try {
      const calls = batch.map(({ call }) => call);
      // failpoint: checkpoint.before
      const rows = await this.#database.query<{ call: number }>(writeStatement(this.#database.schema, calls));
      // failpoint: checkpoint.after
      const allowed = new Set(rows.map((row) => row.call));
      batch.forEach((item, index) => {
        if (allowed.has(index)) item.resolve();
        else item.reject(refusal(item.call));
      });
    } catch (error) {
      const threads = [...new Set(batch.map(({ call }) => call.threadId))];
      if (threads.length === 1) {
        for (const item of batch) item.reject(translateRefusal(error));
        return;
      }
      for (const thread of threads) await this.#write(batch.filter(({ call }) => call.threadId === thread));
    }
  }
}

function refusal({ threadId, leaseToken }: WriteCall): Error {
  if (leaseToken !== null) return new LeaseLostError({ threadId, leaseToken });
  return new BoundaryError("This thread belongs to Countersign and is driven by it alone", {
    facts: { threadId },
    remedy: "Decide with approve(), edit() or reject(), and let cs.work() drive it: nothing was written.",
  });
}

function deferred(): { promise: Promise<void>; resolve: () => void; reject: (reason: unknown) => void } {
  let resolve: () => void = () => {};
  let reject: (reason: unknown) => void = () => {};
  const promise = new Promise<void>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}
