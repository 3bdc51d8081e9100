import type { ExecutionIntent, IntentFailure, IntentStatus } from "../intent.ts";
import type { Json } from "../json.ts";
import type { Queryable } from "./client.ts";
import { type IntentRow, intentFromRow } from "./intents.ts";

/** A kind of intent that a worker serves, and how many more of it may start now. */
export interface KindSlots {
  readonly workflowKey: string;
  readonly slots: number;
}

export interface ClaimInput {
  readonly backend: string;
  readonly worker: string;
  readonly kinds: readonly KindSlots[];
  readonly limit: number;
  readonly leaseMs: number;
}

/**
 * Claims runnable intents: they are `dispatched`, with a new lease token, and committed before any
 * handler is called (G4). Rows that another worker is claiming are skipped. Only registered kinds
 * are touched (rule 14), each through its own range of the partial index.
 */
export async function claimIntents(db: Queryable, input: ClaimInput): Promise<ExecutionIntent[]> {
  const rows = await db.query<IntentRow>({
    name: `${db.schema}.claim`,
    text: `with due as (
        select i.id from unnest($2::text[], $3::int[]) as kind(workflow_key, slots)
        cross join lateral (
          select id from ${db.schema}.execution_intents
          where status = 'runnable' and backend = $1 and workflow_key = kind.workflow_key
            and not_before <= ${db.schema}.clock()
          order by not_before, id limit kind.slots for no key update skip locked
        ) i limit $4
      )
      update ${db.schema}.execution_intents i set
        status = 'dispatched', attempt = attempt + 1, committed_by = $5,
        lease_owner = $5, lease_token = lease_token + 1,
        lease_expires_at = ${db.schema}.clock() + $6 * interval '1 millisecond',
        revision = revision + 1, action = 'intent.claimed', changed_by_type = 'executor_system', changed_by = $5,
        reason_code = null
      -- An array of ids is looked up one by one; of a join the planner may think that it needs the whole table.
      where i.id = any(array(select id from due)) returning i.*`,
    values: [
      input.backend,
      input.kinds.map((kind) => kind.workflowKey),
      input.kinds.map((kind) => kind.slots),
      input.limit,
      input.worker,
      input.leaseMs,
    ],
  });
  return rows.map(intentFromRow);
}

/** How one dispatch of an intent ended, as the worker that holds its lease reports it. */
export interface Settlement {
  readonly id: string;
  readonly leaseToken: number;
  readonly from: "dispatched" | "unknown" | "awaiting_external";
  readonly status: IntentStatus;
  readonly action: string;
  readonly reasonCode?: string;
  readonly output?: Json;
  readonly error?: IntentFailure;
  readonly receipt?: Json;
  readonly externalRef?: string;
  /** Not again before this long has passed. Milliseconds. */
  readonly delayMs?: number;
  readonly expiresAt?: Date;
}

/**
 * Records outcomes, many at once. A settlement counts only with the backend and the lease token that
 * the intent carries now (G7). In their order: whether it counted; the others changed nothing.
 */
export async function settleIntents(
  db: Queryable,
  {
    backend,
    worker,
    settlements,
  }: { readonly backend: string; readonly worker: string; readonly settlements: readonly Settlement[] },
): Promise<readonly boolean[]> {
  const rows = await db.query<{ id: string; token: number }>({
    name: `${db.schema}.settle`,
    text: `with settlement as (
        select * from jsonb_to_recordset($3::jsonb) as s(
          id uuid, token int, was text, status text, action text, reason_code text, output jsonb, error jsonb,
          receipt jsonb, external_ref text, delay_ms float8, expires_at timestamptz)
      ), held as (
        -- What was given up is not tried again, nor waited for. Without an answer it is possibly done, which
        -- a dead letter would not say (rule 16).
        select s.*, i.cancel_requested and (s.status in ('runnable', 'awaiting_external')
                                            or s.status = 'failed' and s.reason_code = 'attempts_spent') as given_up
        from ${db.schema}.execution_intents i join settlement s using (id)
        where i.backend = $1 and i.lease_token = s.token and i.status = s.was
        order by i.id for no key update of i
      )
      update ${db.schema}.execution_intents i set
        status = case when s.given_up then 'cancelled' else s.status end,
        output = coalesce(s.output, i.output), error = s.error,
        receipt = coalesce(s.receipt, i.receipt), external_ref = coalesce(s.external_ref, i.external_ref),
        not_before = case when s.delay_ms is null then i.not_before
                          else ${db.schema}.clock() + s.delay_ms * interval '1 millisecond' end,
        expires_at = s.expires_at, lease_owner = null, lease_expires_at = null,
        revision = revision + 1, changed_by_type = 'executor_system', changed_by = $2,
        action = case when s.given_up then 'intent.cancelled' else s.action end,
        reason_code = case when s.given_up then 'cancelled' else s.reason_code end
      from held s where i.id = s.id returning i.id, s.token`,
    values: [backend, worker, JSON.stringify(settlements.map(settlementToRow))],
  });
  const counted = new Map(rows.map((row) => [row.id, row.token]));
  return settlements.map(({ id, leaseToken }) => counted.get(id) === leaseToken);
}

function settlementToRow(settlement: Settlement): Record<string, unknown> {
  return {
    id: settlement.id,
    token: settlement.leaseToken,
    was: settlement.from,
    status: settlement.status,
    action: settlement.action,
    reason_code: settlement.reasonCode,
    output: settlement.output,
    error: settlement.error,
    receipt: settlement.receipt,
    external_ref: settlement.externalRef,
    delay_ms: settlement.delayMs,
    expires_at: settlement.expiresAt,
  };
}

/** A lease that a worker holds. */
export interface HeldLease {
  readonly id: string;
  readonly leaseToken: number;
}

/**
 * Extends the leases that are still ours. What is missing from the answer was lost. What is to be undone is
 * not tried again, but its call is let end: what it did is undone with its answer (rule 17), and a call that
 * is broken off has none.
 */
export async function renewLeases(
  db: Queryable,
  { leases, leaseMs }: { readonly leases: readonly HeldLease[]; readonly leaseMs: number },
): Promise<{ id: string; cancelRequested: boolean }[]> {
  const rows = await db.query<{ id: string; cancel_requested: boolean }>({
    name: `${db.schema}.renew`,
    // Locked in the order of their ids, like everywhere: a batch that settles meets it half-way otherwise.
    text: `with held as (
        select i.id from ${db.schema}.execution_intents i join unnest($1::uuid[], $2::int[]) as held(id, token) using (id)
        where i.lease_token = held.token and i.lease_owner is not null
        order by i.id for no key update of i
      )
      update ${db.schema}.execution_intents i set
        lease_expires_at = ${db.schema}.clock() + $3 * interval '1 millisecond'
      from held where i.id = held.id
      returning i.id, case when i.cancel_requested then not ${db.schema}.is_let_end(i) else false end as cancel_requested`,
    values: [leases.map((lease) => lease.id), leases.map((lease) => lease.leaseToken), leaseMs],
  });
  return rows.map((row) => ({ id: row.id, cancelRequested: row.cancel_requested }));
}

export interface RescueInput {
  readonly backend: string;
  readonly worker: string;
  readonly kinds: readonly { readonly workflowKey: string; readonly maxAttempts: number }[];
  /** This one alone. */
  readonly id?: string;
}

/**
 * Takes dispatched intents back from workers whose lease ran out. Nobody knows whether the handler
 * did its work: an at-most-once intent becomes `unknown` and is never re-sent by itself (G4b); the
 * others run again under the same key, until their attempts are spent.
 */
export async function rescueIntents(db: Queryable, input: RescueInput): Promise<number> {
  const rows = await db.query<{ id: string }>({
    name: `${db.schema}.rescue`,
    text: `with lost as (
        select i.id, kind.max_attempts from ${db.schema}.execution_intents i
        join unnest($3::text[], $4::int[]) as kind(workflow_key, max_attempts) using (workflow_key)
        where i.status = 'dispatched' and i.backend = $1 and i.lease_expires_at < ${db.schema}.clock()
          and ($5::uuid is null or i.id = $5)
        order by i.id for no key update of i skip locked
      )
      update ${db.schema}.execution_intents i set
        status = case when i.semantics = 'at-most-once' then 'unknown'
                      when i.cancel_requested then 'cancelled'
                      when i.attempt >= lost.max_attempts then 'failed' else 'runnable' end,
        error = jsonb_build_object('code', 'WORKER_LOST', 'message', 'The worker was lost between claim and settlement'),
        lease_owner = null, lease_expires_at = null, lease_token = lease_token + 1, not_before = ${db.schema}.clock(),
        revision = revision + 1,
        action = case when i.semantics = 'at-most-once' then 'intent.unknown'
                      when i.cancel_requested then 'intent.cancelled'
                      when i.attempt >= lost.max_attempts then 'intent.failed' else 'intent.attempted' end,
        changed_by_type = 'executor_system', changed_by = $2, reason_code = 'worker_lost'
      from lost where i.id = lost.id returning i.id`,
    values: [
      input.backend,
      input.worker,
      input.kinds.map((kind) => kind.workflowKey),
      input.kinds.map((kind) => kind.maxAttempts),
      input.id ?? null,
    ],
  });
  return rows.length;
}
