import type { ExecutionIntent, IntentStatus } from "../intent.ts";
import type { Queryable } from "./client.ts";
import { type IntentRow, intentFromRow } from "./intents.ts";

/*
 * For a backend that is not polled but told: an orchestrator that gets one intent at a time and
 * comes back for it. A runnable row that was handed over carries a lease that says so, so that no
 * two relays hand it over at once; whoever carries it out claims it past that lease.
 */

/** An intent that is to be handed over, and what its orchestrator needs to know of it. */
export interface HandedOver {
  readonly id: string;
  readonly digest: string;
  readonly workflowKey: string;
  readonly kind: "effect" | "compensation";
  /** It was handed over before: it is tried again, was replayed, or its worker was lost. */
  readonly again: boolean;
}

interface HandedOverRow {
  readonly id: string;
  readonly digest: string;
  readonly workflow_key: string;
  readonly kind: "effect" | "compensation";
  readonly again: boolean;
}

export interface HandOverInput {
  readonly backend: string;
  readonly owner: string;
  readonly workflowKeys: readonly string[];
  /** At most this many at once, and so many may be handed over and not be claimed yet. */
  readonly limit: number;
  readonly maxUnclaimed: number;
  /** How long to wait for the claim before handing over again; ten times as long from then on. Milliseconds. */
  readonly leaseMs: number;
  /** A retry is the orchestrator's own business, unless it is overdue by this. Milliseconds. */
  readonly graceMs: number;
}

/**
 * Takes runnable intents that are due, to hand them over. One that was handed over and is not claimed
 * is taken again once soon, since its relay may have died before it told anybody, and then rarely: an
 * orchestrator that lags behind has it already, and would only fall back further. After a retry, or
 * where it was given back, it counts as new.
 */
export async function takeForHandOver(db: Queryable, input: HandOverInput): Promise<HandedOver[]> {
  const rows = await db.query<HandedOverRow>({
    name: `${db.schema}.hand_over`,
    text: `with unclaimed as (
        select count(*)::int as n from (
          select from ${db.schema}.execution_intents
          where status = 'runnable' and backend = $1 and workflow_key = any($2::text[])
            and lease_expires_at > ${db.schema}.clock() limit $4) taken
      ), due as (
        select i.id from unnest($2::text[]) as kind(workflow_key)
        cross join lateral (
          select id from ${db.schema}.execution_intents
          where status = 'runnable' and backend = $1 and workflow_key = kind.workflow_key
            and not_before <= ${db.schema}.clock() - case when attempt = 0 then 0 else $6::float8 end * interval '1 millisecond'
            and (lease_expires_at is null or lease_expires_at <= ${db.schema}.clock())
          order by not_before, id limit $3 for no key update skip locked
        ) i limit (select least($3, greatest(0, $4 - n)) from unclaimed)
      )
      update ${db.schema}.execution_intents i set
        lease_owner = $7, lease_expires_at = ${db.schema}.clock()
          + case when i.lease_expires_at is null then 1 else 10 end * $5::float8 * interval '1 millisecond'
      from due where i.id = due.id
      returning i.id, i.digest, i.workflow_key, i.kind,
        i.attempt > 0 or i.decision_round > 1 or i.action = 'intent.replayed' as again`,
    values: [
      input.backend,
      input.workflowKeys,
      input.limit,
      input.maxUnclaimed,
      input.leaseMs,
      input.graceMs,
      input.owner,
    ],
  });
  return rows.map(handedOverFromRow);
}

/** Gives back what could not be handed over. */
export async function giveBack(
  db: Queryable,
  { ids, owner }: { readonly ids: readonly string[]; readonly owner: string },
): Promise<void> {
  await db.query({
    text: `update ${db.schema}.execution_intents set lease_owner = null, lease_expires_at = null
           where id = any($1::uuid[]) and status = 'runnable' and lease_owner = $2`,
    values: [ids, owner],
  });
}

export interface OverdueInput {
  readonly backend: string;
  readonly workflowKeys: readonly string[];
  readonly reconcilable: readonly string[];
  readonly pollable: readonly string[];
  readonly graceMs: number;
  readonly limit: number;
}

/**
 * Intents that somebody should have come back for and nobody did: their worker was lost, or their
 * provider is to be asked. Nothing is changed: whoever is told of them looks at the row.
 */
export async function overdueIntents(db: Queryable, input: OverdueInput): Promise<HandedOver[]> {
  const rows = await db.query<HandedOverRow>({
    name: `${db.schema}.overdue`,
    text: `select id, digest, workflow_key, kind, true as again from ${db.schema}.execution_intents
      where backend = $1
        and (status = 'dispatched' and workflow_key = any($2::text[])
             or status = 'unknown' and workflow_key = any($3::text[]) and kind = 'effect'
                and not_before < ${db.schema}.clock() - $5 * interval '1 millisecond'
             or status = 'awaiting_external' and workflow_key = any($4::text[]) and kind = 'effect'
                and not_before < ${db.schema}.clock() - $5 * interval '1 millisecond')
        and coalesce(lease_expires_at, '-infinity') < ${db.schema}.clock() - $5 * interval '1 millisecond'
      order by id limit $6`,
    values: [input.backend, input.workflowKeys, input.reconcilable, input.pollable, input.graceMs, input.limit],
  });
  return rows.map(handedOverFromRow);
}

function handedOverFromRow(row: HandedOverRow): HandedOver {
  return { id: row.id, digest: row.digest, workflowKey: row.workflow_key, kind: row.kind, again: row.again };
}

export interface ClaimOneInput {
  readonly id: string;
  readonly backend: string;
  readonly workflowKey: string;
  readonly worker: string;
  readonly leaseMs: number;
}

/**
 * Claims one intent if it is runnable and due: `dispatched`, with a new lease token, and committed
 * before its handler is called (G4). Of several who try at once one gets it.
 */
export async function claimIntent(db: Queryable, input: ClaimOneInput): Promise<ExecutionIntent | undefined> {
  const [row] = await db.query<IntentRow>({
    name: `${db.schema}.claim_one`,
    text: `update ${db.schema}.execution_intents set
        status = 'dispatched', attempt = attempt + 1, committed_by = $4,
        lease_owner = $4, lease_token = lease_token + 1,
        lease_expires_at = ${db.schema}.clock() + $5 * interval '1 millisecond',
        revision = revision + 1, action = 'intent.claimed', changed_by_type = 'executor_system', changed_by = $4,
        reason_code = null
      where id = $1 and backend = $2 and workflow_key = $3 and status = 'runnable' and not_before <= ${db.schema}.clock()
      returning *`,
    values: [input.id, input.backend, input.workflowKey, input.worker, input.leaseMs],
  });
  return row && intentFromRow(row);
}

/** How an intent stands, with its instants as times from now. Milliseconds; what is past is 0 or less. */
export interface Standing {
  readonly status: IntentStatus;
  /** When it may run, or its provider may be asked. */
  readonly dueInMs: number;
  /** How long somebody still holds it. */
  readonly leasedForMs: number | null;
  readonly expiresInMs: number | null;
}

/** Looks at one intent of this backend's. */
export async function loadStanding(
  db: Queryable,
  { id, backend, workflowKey }: Pick<ClaimOneInput, "id" | "backend" | "workflowKey">,
): Promise<Standing | undefined> {
  const fromNow = (column: string): string => `(extract(epoch from ${column} - ${db.schema}.clock()) * 1000)::float8`;
  const [row] = await db.query<{
    status: IntentStatus;
    due_in_ms: number;
    leased_for_ms: number | null;
    expires_in_ms: number | null;
  }>({
    name: `${db.schema}.standing`,
    text: `select status, ${fromNow("not_before")} as due_in_ms, ${fromNow("lease_expires_at")} as leased_for_ms,
             ${fromNow("expires_at")} as expires_in_ms
           from ${db.schema}.execution_intents where id = $1 and backend = $2 and workflow_key = $3`,
    values: [id, backend, workflowKey],
  });
  if (row === undefined) return undefined;
  const { status, due_in_ms: dueInMs, leased_for_ms: leasedForMs, expires_in_ms: expiresInMs } = row;
  return { status, dueInMs, leasedForMs, expiresInMs };
}

/** Of these intents those with which something can still be done at once, or is being done. */
export async function loadUnderWay(
  db: Queryable,
  {
    ids,
    reconcilable,
    pollable,
  }: { readonly ids: readonly string[] } & Pick<OverdueInput, "reconcilable" | "pollable">,
): Promise<string[]> {
  const rows = await db.query<{ id: string }>({
    name: `${db.schema}.under_way`,
    text: `select id from ${db.schema}.execution_intents
      where id = any($1::uuid[])
        and (status = 'runnable' and not_before <= ${db.schema}.clock()
          or status = 'dispatched'
          or status = 'unknown' and workflow_key = any($2::text[]) and not_before <= ${db.schema}.clock()
          or status = 'awaiting_external' and workflow_key = any($3::text[]) and not_before <= ${db.schema}.clock())`,
    values: [ids, reconcilable, pollable],
  });
  return rows.map((row) => row.id);
}
