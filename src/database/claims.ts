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

export interface LeaseInquiryInput {
  readonly backend: string;
  readonly worker: string;
  readonly status: "unknown" | "awaiting_external";
  readonly workflowKeys: readonly string[];
  readonly limit: number;
  readonly leaseMs: number;
  /** This one alone. */
  readonly id?: string;
}

/** Leases intents whose provider is to be asked: `unknown` ones to reconcile, pending ones to poll. */
export async function leaseInquiries(db: Queryable, input: LeaseInquiryInput): Promise<ExecutionIntent[]> {
  const rows = await db.query<IntentRow>({
    // The status is no parameter: a plan that is made once must know it to use the index.
    name: `${db.schema}.lease_inquiries.${input.status}.${input.id === undefined ? "any" : "one"}`,
    text: `with due as (
        select i.id from unnest($2::text[]) as served(workflow_key)
        cross join lateral (
          select id from ${db.schema}.execution_intents
          where status = '${input.status}' and kind = 'effect' and backend = $1 and workflow_key = served.workflow_key
            and not_before <= ${db.schema}.clock()
            and (lease_expires_at is null or lease_expires_at < ${db.schema}.clock())
            ${input.id === undefined ? "" : "and id = $6"}
          order by not_before, id limit $3 for no key update skip locked
        ) i limit $3
      )
      update ${db.schema}.execution_intents i set
        lease_owner = $4, lease_token = lease_token + 1,
        lease_expires_at = ${db.schema}.clock() + $5 * interval '1 millisecond'
      where i.id = any(array(select id from due)) returning i.*`,
    values: [
      input.backend,
      input.workflowKeys,
      input.limit,
      input.worker,
      input.leaseMs,
      ...(input.id === undefined ? [] : [input.id]),
    ],
  });
  return rows.map(intentFromRow);
}

/** Gives an inquiry back: asked, not answered yet. It comes up again after the delay. */
export async function releaseInquiry(
  db: Queryable,
  { id, leaseToken, delayMs }: HeldLease & { readonly delayMs: number },
): Promise<void> {
  await db.query({
    text: `update ${db.schema}.execution_intents set lease_owner = null, lease_expires_at = null,
             not_before = ${db.schema}.clock() + $3 * interval '1 millisecond'
           where id = $1 and lease_token = $2`,
    values: [id, leaseToken, delayMs],
  });
}

export interface NextWorkInput {
  readonly backend: string;
  /** Every kind that the worker serves: leases on them may run out. */
  readonly workflowKeys: readonly string[];
  /** Those of which another one could start now. */
  readonly startable: readonly string[];
  readonly reconcilable: readonly string[];
  readonly pollable: readonly string[];
}

/** When there is something to do next. Milliseconds from now; undefined: nothing in sight. */
export interface NextWork {
  /** An intent becomes due. */
  readonly startInMs: number | undefined;
  /** A lease runs out, or a provider is to be asked. */
  readonly attendInMs: number | undefined;
}

/** When there is something to do next, so that a worker can wait exactly that long. */
export async function nextWork(db: Queryable, input: NextWorkInput): Promise<NextWork> {
  // The kinds come as jsonb: the planner guesses the length of an array, and would plan anew for each.
  const first = (status: string, keys: string): string => `
    select open.not_before as at from jsonb_array_elements_text(${keys}::jsonb) as served(workflow_key)
    cross join lateral (
      select not_before from ${db.schema}.execution_intents
      where status = '${status}' and backend = $1 and workflow_key = served.workflow_key
        ${status === "runnable" ? "" : "and kind = 'effect' and lease_expires_at is null"}
      order by not_before limit 1
    ) open`;
  const inMs = (at: string): string => `(extract(epoch from ${at} - ${db.schema}.clock()) * 1000)::float8`;
  const [row] = await db.query<{ start_in_ms: number | null; attend_in_ms: number | null }>({
    name: `${db.schema}.next_work`,
    text: `select ${inMs("start.at")} as start_in_ms, ${inMs("attend.at")} as attend_in_ms
      from (select min(at) as at from (${first("runnable", "$3")}) runnable) start, (
        select min(next.at) as at from (
          select min(lease_expires_at) as at from ${db.schema}.execution_intents
          where status in ('dispatched', 'unknown', 'awaiting_external') and lease_expires_at is not null
            and backend = $1 and workflow_key = any($2::text[])
          union all ${first("unknown", "$4")}
          union all ${first("awaiting_external", "$5")}
        ) next
      ) attend`,
    values: [
      input.backend,
      input.workflowKeys,
      JSON.stringify(input.startable),
      JSON.stringify(input.reconcilable),
      JSON.stringify(input.pollable),
    ],
  });
  return { startInMs: row?.start_in_ms ?? undefined, attendInMs: row?.attend_in_ms ?? undefined };
}
