import { nextCompensationMove } from "../compensation.ts";
import type { Database, Queryable } from "../database/client.ts";
import {
  endCompensation,
  insertCompensationStep,
  loadThreadsToCompensate,
  lockThreadIntents,
  moveEffect,
  settleThreadCompensation,
} from "../database/compensation.ts";
import { cancelIntents } from "../database/decisions.ts";
import { endTimers, expireIntents, isAnyOverdue, nextDueInMs } from "../database/sweep.ts";
import type { Wakeups } from "../database/wakeups.ts";

export interface SweeperInput {
  readonly database: Database;
  readonly wakeups: Wakeups;
  readonly pollIntervalMs: number;
  readonly onError: (error: unknown) => void;
}

const GIVEN_UP = { by: "countersign", byType: "automated_workflow", reasonCode: "compensating" } as const;

/** Threads per round whose compensation is moved on. */
const LIMIT = 50;

/**
 * Does what the clock and the rows ask for and no backend owns: ends timers, expires requests, and
 * moves compensations on. Any number of processes may sweep; each move is one transaction.
 */
export class Sweeper {
  readonly #input: SweeperInput;

  constructor(input: SweeperInput) {
    this.#input = input;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { wakeups, database, pollIntervalMs, onError } = this.#input;
    while (!signal.aborted) {
      const watch = wakeups.watch("due");
      let waitMs = pollIntervalMs;
      try {
        const dueInMs = (await nextDueInMs(database)) ?? pollIntervalMs;
        // What is due and could not be moved on is tried again with the next poll, not in a tight loop.
        if (dueInMs > 0) waitMs = Math.min(waitMs, dueInMs);
        else if ((await this.tick()) > 0) waitMs = 0;
      } catch (error) {
        onError(error);
      }
      if (signal.aborted) watch.cancel();
      else await watch.until(waitMs, signal);
    }
  }

  /** One round; returns how much it changed. */
  async tick(): Promise<number> {
    const { database, onError } = this.#input;
    const expired = (await isAnyOverdue(database)) ? await database.transaction(expireIntents) : 0;
    let changed = expired + (await endTimers(database));
    for (const threadId of await loadThreadsToCompensate(database, LIMIT)) {
      try {
        changed += await database.transaction((tx) => compensateThread(tx, threadId));
        // failpoint: compensation.after
      } catch (error) {
        // One thread that cannot be moved on must not hold up those behind it.
        onError(error);
      }
    }
    return changed;
  }
}

/** Makes all moves that a thread's compensation can make now, under the lock of its rows. */
async function compensateThread(tx: Queryable, threadId: string): Promise<number> {
  for (let moves = 0; ; moves++) {
    const intents = await lockThreadIntents(tx, threadId);
    const move = nextCompensationMove(intents);
    // failpoint: compensation.within
    switch (move?.kind) {
      case undefined:
        await settleThreadCompensation(tx, { threadId, open: false });
        return moves;
      case "wait":
        await cancelIntents(tx, { ids: move.running, ...GIVEN_UP });
        await settleThreadCompensation(tx, { threadId, open: true });
        return moves;
      case "cancel":
        await cancelIntents(tx, { ids: move.ids, ...GIVEN_UP });
        break;
      case "mark":
        await moveEffect(tx, { effect: move.effect, status: move.status, action: `intent.${move.status}` });
        break;
      case "again":
        await moveEffect(tx, { effect: move.effect, status: "compensating", action: "compensation.started" });
        break;
      case "step":
        await insertCompensationStep(tx, move);
        break;
      case "end":
        await endCompensation(tx, move);
        break;
    }
  }
}
