import type { IntentFailure } from "../intent.ts";
import type { Json } from "../json.ts";
import type { Queryable } from "./client.ts";
import { lockWithGroup } from "./decisions.ts";

/** Who, from outside the worker, ends an intent: a webhook, a person, an operator. */
export interface ExternalActor {
  readonly type: "human" | "executor_system" | "automated_workflow";
  readonly id: string;
}

export interface ExternalOutcome {
  readonly intentId: string;
  /** The backend that owns the intent: the only one that may end it (G7). */
  readonly backend: string;
  readonly by: ExternalActor;
  readonly reasonCode: string;
  readonly result:
    | { readonly status: "succeeded"; readonly output: Json; readonly receipt: Json | null }
    | { readonly status: "failed"; readonly error: IntentFailure };
}

/**
 * Ends an effect by word from outside. A worker that still holds it loses its lease with this, so
 * that a webhook that is faster than the handler's own answer counts once.
 * An `unknown` effect ends as succeeded only with the provider's receipt (rule 15).
 * @returns false when the intent is not in a state that can be ended from outside.
 */
export async function endFromOutside(db: Queryable, outcome: ExternalOutcome): Promise<boolean> {
  const { result } = outcome;
  const receipt = result.status === "succeeded" ? result.receipt : null;
  const rows = await db.query({
    text: `update ${db.schema}.execution_intents set
        status = $3, output = coalesce($4::jsonb, output), error = $5::jsonb, receipt = coalesce($6::jsonb, receipt),
        lease_owner = null, lease_expires_at = null, lease_token = lease_token + 1, expires_at = null,
        revision = revision + 1,
        action = case when status = 'unknown' then 'intent.reconciled' else 'intent.' || $3 end,
        changed_by_type = $7, changed_by = $8, reason_code = $9
      where id = $1 and backend = $2 and kind = 'effect'
        and (status in ('dispatched', 'awaiting_external')
             or status = 'unknown' and ($3 = 'failed' or $6::jsonb is not null))
        and (expires_at is null or expires_at > ${db.schema}.clock())
      returning id`,
    values: [
      outcome.intentId,
      outcome.backend,
      result.status,
      result.status === "succeeded" ? JSON.stringify(result.output) : null,
      result.status === "failed" ? JSON.stringify(result.error) : null,
      receipt === null ? null : JSON.stringify(receipt),
      outcome.by.type,
      outcome.by.id,
      outcome.reasonCode,
    ],
  });
  return rows.length > 0;
}

export interface ReplayInput {
  readonly intentId: string;
  readonly by: ExternalActor;
  /** Where it needs its decisions anew: how long people may take. */
  readonly decisionTimeoutMs: number;
}

/**
 * Puts a dead letter back: it runs again with fresh attempts and, as the provider may have seen the
 * old key, with the same one; an at-most-once intent gets a new key and needs its decisions anew
 * (rule 15). A failed compensation is tried again the same way. What belongs to something that was rejected,
 * undone or cancelled stays a dead letter: nothing would undo it any more.
 */
export async function replayIntent(tx: Queryable, { intentId, by, decisionTimeoutMs }: ReplayInput): Promise<boolean> {
  // Whoever gives the rest of its commitAll or its thread up at this moment holds its row.
  await lockWithGroup(tx, intentId);
  const rows = await tx.query({
    text: `update ${tx.schema}.execution_intents i set
        status = case when semantics = 'at-most-once' and min_approvers > 0 then 'awaiting_decision' else 'runnable' end,
        idempotency_key = case when semantics = 'at-most-once' then id || ':' || (revision + 1) else idempotency_key end,
        decision_round = decision_round + case when semantics = 'at-most-once' then 1 else 0 end,
        external_ref = case when semantics = 'at-most-once' then null else external_ref end,
        attempt = 0, error = null, cancel_requested = false,
        expires_at = case when semantics = 'at-most-once' and min_approvers > 0
                          then ${tx.schema}.clock() + $4 * interval '1 millisecond' end, not_before = ${tx.schema}.clock(),
        revision = revision + 1, action = 'intent.replayed', changed_by_type = $2, changed_by = $3, reason_code = 'replay'
      where id = $1 and status = 'failed' and kind in ('effect', 'compensation') and backend is not null
        and not exists (select from ${tx.schema}.execution_intents undone where undone.compensates = $1)
        and (kind = 'compensation' or not ${tx.schema}.is_given_up(i))
      returning id`,
    values: [intentId, by.type, by.id, decisionTimeoutMs],
  });
  return rows.length > 0;
}
