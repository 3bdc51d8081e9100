import type { BackendHost } from "../backend.ts";
import { refusedMove, setAside } from "../database/refused.ts";
import { BoundaryError } from "../errors.ts";

/**
 * Moves intents. A row that somebody has changed past the guards makes the database refuse all of a
 * batch: that row is set aside and reported, so that it keeps nobody else's intents from running.
 */
export async function pastRefused<Result>(
  { database, workerId: worker, onError }: BackendHost,
  move: () => Promise<Result>,
): Promise<Result> {
  for (;;) {
    try {
      return await move();
    } catch (error) {
      const refused = refusedMove(error);
      if (refused === undefined || !(await setAside(database, { intentId: refused.intentId, worker }))) throw error;
      onError(
        new BoundaryError("An intent is not what was approved, and was set aside: it will not run", {
          facts: { ...refused },
          remedy: "It was changed past Countersign, by SQL. Find out who can write there, and verify the audit trail.",
          cause: error,
        }),
      );
    }
  }
}
