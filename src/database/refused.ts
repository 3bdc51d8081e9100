import type { Database, Queryable } from "./client.ts";
import { cancelIntents, lockWithGroup } from "./decisions.ts";

/** The intent that a guard refused to move, and why. */
export interface RefusedMove {
  readonly intentId: string;
  readonly reason: string;
}

/** What a guard of ours says of one row of a batch (migration 0002), or `undefined` for another error. */
export function refusedMove(error: unknown): RefusedMove | undefined {
  const { code, message, detail } = error as { code?: string; message?: string; detail?: string };
  const [, intentId] = detail?.match(/^([0-9a-f-]{36}): /) ?? [];
  return code === "CS001" && intentId !== undefined ? { intentId, reason: String(message) } : undefined;
}

/**
 * Takes an intent out of the workers' way that was changed past the guards, by SQL with the triggers
 * disabled: what has not started is cancelled, with what was committed to together with it (G5); of
 * what its worker left behind nobody knows whether it ran, so it is `unknown`.
 * @returns false where it has moved on meanwhile, and nothing was changed.
 */
export async function setAside(
  db: Database,
  { intentId, worker }: { readonly intentId: string; readonly worker: string },
): Promise<boolean> {
  return db.transaction(async (tx) => {
    const group = await lockWithGroup(tx, intentId);
    const status = group.find(({ id }) => id === intentId)?.status;
    if (status === "dispatched") return leaveUnknown(tx, { intentId, worker });
    if (status !== "runnable") return false;
    const ids = group.filter((intent) => intent.status !== "awaiting_external").map(({ id }) => id);
    await cancelIntents(tx, { ids, by: worker, byType: "executor_system", reasonCode: "refused" });
    return true;
  });
}

async function leaveUnknown(
  tx: Queryable,
  { intentId, worker }: { readonly intentId: string; readonly worker: string },
): Promise<boolean> {
  const rows = await tx.query({
    text: `update ${tx.schema}.execution_intents set
        status = 'unknown', lease_owner = null, lease_expires_at = null, lease_token = lease_token + 1,
        revision = revision + 1, action = 'intent.unknown', changed_by_type = 'executor_system', changed_by = $2,
        reason_code = 'refused'
      where id = $1 and status = 'dispatched' and lease_expires_at < ${tx.schema}.clock() returning id`,
    values: [intentId, worker],
  });
  return rows.length > 0;
}
