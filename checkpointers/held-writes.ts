import type { Queryable } from "../src/database/client.ts";
import type { WriteTicket } from "./write-batcher.ts";
import type { WriteCall } from "./write-call.ts";
import { writeStatement } from "./write-statement.ts";

/**
 * What an update of a thread's state asks to be written, held back until it can go into one
 * transaction with what must come with it: an update that fails has then written nothing.
 */
export class HeldWrites {
  readonly #calls: WriteCall[] = [];

  write(call: WriteCall): WriteTicket {
    this.#calls.push(call);
    return { done: Promise.resolve(), sent: true };
  }

  /** Writes all of it, under a lease that was taken in the same transaction: the fence lets it through. */
  async persist(tx: Queryable, leaseToken: number): Promise<void> {
    const calls = this.#calls.map((call) => ({ ...call, leaseToken }));
    await tx.query(writeStatement(tx.schema, calls));
  }
}
