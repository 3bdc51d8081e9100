import type { WriteTicket } from "./write-batcher.ts";

/** The checkpoint that a call is about. */
export interface CheckpointPlace {
  readonly threadId: string;
  readonly ns: string;
  readonly checkpointId: string;
}

/**
 * Keeps a checkpoint from committing before the task writes that led to it (trap T1), and task
 * writes from committing before the checkpoint that they belong to.
 *
 * LangGraph issues `putWrites(task)` and the next `put` side by side and orders neither: a `put`
 * that wins while its task's writes fail loses them for good, intents included. The memory is kept
 * per run, not per thread, so that a failed run does not poison its retry in the same process.
 */
export class WriteOrder {
  readonly #runs = new WeakMap<object, Map<string, Promise<WriteTicket>[]>>();

  /**
   * Notes a call of this run that others must not overtake. `pending` resolves when it has joined a batch.
   */
  note(run: object, kind: "put" | "writes", place: CheckpointPlace, pending: Promise<WriteTicket>): void {
    let calls = this.#runs.get(run);
    if (calls === undefined) {
      calls = new Map();
      this.#runs.set(run, calls);
    }
    const key = keyOf(kind, place);
    calls.set(key, [...(calls.get(key) ?? []), pending]);
  }

  /**
   * Resolves when the noted calls have committed or are in the batch that is still open, so that
   * joining it now commits together with them. Rejects with the first one's reason if one failed.
   */
  async behind(run: object, kind: "put" | "writes", place: CheckpointPlace): Promise<void> {
    const earlier = this.#runs.get(run)?.get(keyOf(kind, place));
    if (earlier === undefined) return;
    let open = await Promise.all(earlier);
    // Awaiting some may let the open batch go out with the rest: look again until none is on its way.
    for (let flying = sentOf(open); flying.length > 0; flying = sentOf(open)) {
      await Promise.all(flying.map((ticket) => ticket.done));
      open = open.filter((ticket) => !flying.includes(ticket));
    }
  }

  /** A checkpoint that is persisted needs no guarding any more. */
  forget(run: object, kind: "put" | "writes", place: CheckpointPlace): void {
    this.#runs.get(run)?.delete(keyOf(kind, place));
  }
}

function keyOf(kind: "put" | "writes", { threadId, ns, checkpointId }: CheckpointPlace): string {
  return JSON.stringify([kind, threadId, ns, checkpointId]);
}

function sentOf(tickets: readonly WriteTicket[]): WriteTicket[] {
  return tickets.filter((ticket) => ticket.sent);
}
