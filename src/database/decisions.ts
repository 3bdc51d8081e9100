import type { Principal, RecordedDecision, Verdict } from "../decision.ts";
import type { ExecutionIntent } from "../intent.ts";
import type { Json } from "../json.ts";
import type { Requirement } from "../policy.ts";
import type { Queryable } from "./client.ts";
import { type IntentRow, intentFromRow } from "./intents.ts";

interface DecisionRow {
  readonly verdict: Verdict;
  readonly principal_id: string;
  readonly principal_roles: string[];
  readonly digest: string;
  readonly at: Date;
}

/** The decisions on an intent so far, the oldest first. */
export async function loadDecisions(db: Queryable, intentId: string): Promise<RecordedDecision[]> {
  const rows = await db.query<DecisionRow>({
    text: `select verdict, principal_id, principal_roles, digest, at
           from ${db.schema}.decisions d where intent_id = $1
             and round = (select decision_round from ${db.schema}.execution_intents where id = $1) order by id`,
    values: [intentId],
  });
  return rows.map((row) => ({
    verdict: row.verdict,
    principalId: row.principal_id,
    principalRoles: row.principal_roles,
    digest: row.digest,
    at: row.at,
  }));
}

/**
 * The intent with its siblings of one `commitAll`, locked in the order of their ids, so that a
 * rejection can end them all in this transaction.
 */
export async function lockWithGroup(tx: Queryable, intentId: string): Promise<ExecutionIntent[]> {
  const rows = await tx.query<IntentRow>({
    text: `select i.* from ${tx.schema}.execution_intents i
           where i.id = $1 or i.group_id = (select group_id from ${tx.schema}.execution_intents where id = $1)
           order by i.id for no key update`,
    values: [intentId],
  });
  return rows.map(intentFromRow);
}

export interface NewDecision {
  readonly intentId: string;
  readonly verdict: Verdict;
  readonly by: Principal;
  readonly digest: string;
  readonly previousDigest: string | null;
  readonly reason: string | null;
}

export async function insertDecision(tx: Queryable, decision: NewDecision): Promise<void> {
  await tx.query({
    text: `insert into ${tx.schema}.decisions
             (intent_id, round, verdict, principal_id, principal_roles, digest, previous_digest, reason, at)
           select id, decision_round, $2, $3, $4, $5, $6, $7, ${tx.schema}.clock()
           from ${tx.schema}.execution_intents where id = $1`,
    values: [
      decision.intentId,
      decision.verdict,
      decision.by.id,
      decision.by.roles,
      decision.digest,
      decision.previousDigest,
      decision.reason,
    ],
  });
}

export interface DecidedIntent {
  readonly id: string;
  readonly status: "awaiting_decision" | "runnable" | "succeeded" | "rejected";
  readonly action: "decision.approved" | "decision.edited" | "decision.rejected";
  readonly by: string;
  readonly reasonCode: string | null;
  /** After an edit. */
  readonly edited?: {
    readonly payload: Json;
    readonly digest: string;
    readonly summary: string;
    readonly idempotencyKey: string;
    readonly requirement: Requirement;
  };
  /** After a rejection: why, for the graph. */
  readonly reason?: string | null;
}

/** Applies what `decide()` found; the guard of the state machine looks at it once more. */
export async function applyDecision(tx: Queryable, decided: DecidedIntent): Promise<void> {
  await tx.query({
    text: `update ${tx.schema}.execution_intents set
        status = $2, payload = coalesce($3::jsonb, payload), digest = coalesce($4, digest),
        payload_summary = coalesce($5, payload_summary),
        -- A replay gave it a key of its own, since the provider may have seen the one that the payload makes (rule 15).
        idempotency_key = case when decision_round > 1 then idempotency_key else coalesce($6, idempotency_key) end,
        error = case when $2 = 'rejected' then jsonb_build_object('code', 'REJECTED', 'message', $7::text) end,
        min_approvers = greatest(min_approvers, $11::int), required_roles = coalesce($12::jsonb, required_roles),
        expires_at = case when $2 = 'awaiting_decision' then expires_at end,
        revision = revision + 1, action = $8, changed_by_type = 'human', changed_by = $9, reason_code = $10
      where id = $1`,
    values: [
      decided.id,
      decided.status,
      decided.edited === undefined ? null : JSON.stringify(decided.edited.payload),
      decided.edited?.digest ?? null,
      decided.edited?.summary ?? null,
      decided.edited?.idempotencyKey ?? null,
      decided.reason ?? null,
      decided.action,
      decided.by,
      decided.reasonCode,
      decided.edited?.requirement.minApprovers ?? 0,
      decided.edited === undefined ? null : JSON.stringify(decided.edited.requirement.roles),
    ],
  });
}

/**
 * Ends what has not started yet. What runs already is asked to stop: its worker hears of it by the notification, or
 * with its next heartbeat; what it has done all the same is reported (rule 17), but it is not tried again. One
 * statement decides between the two under the lock of each row, so that no retry or claim slips through in between.
 * @returns the ids of those that have ended with this.
 */
export async function cancelIntents(
  tx: Queryable,
  input: { readonly ids: readonly string[]; readonly by: string; readonly byType: string; readonly reasonCode: string },
): Promise<string[]> {
  if (input.ids.length === 0) return [];
  const rows = await tx.query<{ id: string; ended: boolean }>({
    text: `with open as (
        select id, status = 'dispatched' as runs from ${tx.schema}.execution_intents
        where id = any($1::uuid[])
          and status in ('recorded', 'awaiting_decision', 'runnable', 'awaiting_external', 'dispatched')
        order by id for no key update
      ), asked as (
        update ${tx.schema}.execution_intents i set cancel_requested = true
        from open where i.id = open.id and open.runs and not i.cancel_requested returning i.id
      ), ended as (
        update ${tx.schema}.execution_intents i set
          status = 'cancelled', revision = revision + 1, action = 'intent.cancelled',
          changed_by_type = $2, changed_by = $3, reason_code = $4
        from open where i.id = open.id and not open.runs returning i.id
      )
      select id, true as ended, null as told from ended
      union all select id, false, ${tx.schema}.notify('cancel')::text from asked`,
    values: [input.ids, input.byType, input.by, input.reasonCode],
  });
  return rows.filter(({ ended }) => ended).map(({ id }) => id);
}
