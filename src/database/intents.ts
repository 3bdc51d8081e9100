import {
  type ExecutionIntent,
  type IntentFailure,
  type IntentKind,
  type IntentProposal,
  type IntentStatus,
  isIntentId,
} from "../intent.ts";
import type { Json } from "../json.ts";
import type { ActorType, Classes } from "../policy.ts";
import type { Queryable } from "./client.ts";

/** A row of `execution_intents` as both drivers return it. */
export interface IntentRow {
  readonly [column: string]: unknown;
}

/** The row as the SDK's own type: the one place where column names and field names meet. */
export function intentFromRow(row: IntentRow): ExecutionIntent {
  return {
    id: row.id as string,
    tenant: row.tenant as string,
    threadId: row.thread_id as string,
    kind: row.kind as IntentKind,
    commitment: row.commitment as string,
    version: row.version as number,
    workflowKey: row.workflow_key as string,
    idempotencyKey: row.idempotency_key as string,
    correlationId: row.correlation_id as string,
    causationId: row.causation_id as string | null,
    traceId: row.trace_id as string | null,
    spanId: row.span_id as string | null,
    classes: {
      sideEffectClass: row.side_effect_class,
      approvalClass: row.approval_class,
      reversibilityClass: row.reversibility_class,
      sensitivityClass: row.sensitivity_class,
      actionClass: row.action_class,
    } as Classes,
    proposedBy: row.proposed_by as string,
    actorType: row.actor_type as ActorType,
    committedBy: row.committed_by as string | null,
    payload: row.payload as Json,
    payloadSummary: row.payload_summary as string,
    digest: row.digest as string,
    proposedDigest: row.proposed_digest as string,
    editSchema: row.edit_schema as Json | null,
    evidence: row.evidence as Json | null,
    requirement: {
      minApprovers: row.min_approvers as number,
      roles: row.required_roles as string[][],
    },
    status: row.status as IntentStatus,
    semantics: row.semantics as "at-least-once" | "at-most-once",
    backend: row.backend as string | null,
    waits: row.waits as boolean,
    groupId: row.group_id as string | null,
    compensable: row.compensable as boolean,
    compensates: row.compensates as string | null,
    notBefore: row.not_before as Date,
    expiresAt: row.expires_at as Date | null,
    attempt: row.attempt as number,
    leaseOwner: row.lease_owner as string | null,
    leaseToken: row.lease_token as number,
    leaseExpiresAt: row.lease_expires_at as Date | null,
    externalRef: row.external_ref as string | null,
    output: row.output as Json | null,
    error: row.error as IntentFailure | null,
    receipt: row.receipt as Json | null,
    checkpointNs: row.checkpoint_ns as string,
    checkpointId: row.checkpoint_id as string,
    taskId: row.task_id as string,
    schemaVersion: row.schema_version as number,
    createdAt: row.created_at as Date,
    updatedAt: row.updated_at as Date,
    endedAt: row.ended_at as Date | null,
  };
}

/** One intent, or `undefined`. With `lock` the row stays ours until the transaction ends. */
export async function loadIntent(
  db: Queryable,
  id: string,
  { lock = false }: { readonly lock?: boolean } = {},
): Promise<ExecutionIntent | undefined> {
  if (!isIntentId(id)) return undefined;
  const [row] = await db.query<IntentRow>({
    text: `select * from ${db.schema}.execution_intents where id = $1 ${lock ? "for no key update" : ""}`,
    values: [id],
  });
  return row && intentFromRow(row);
}

/** Every intent of a thread, in the order in which they were recorded. */
export async function loadThreadIntents(db: Queryable, threadId: string): Promise<ExecutionIntent[]> {
  const [intents] = await loadIntentsOfThreads(db, [threadId]);
  return intents ?? [];
}

/** For each of these threads, in their order, its intents in the order in which they were recorded. */
export async function loadIntentsOfThreads(db: Queryable, threadIds: readonly string[]): Promise<ExecutionIntent[][]> {
  const rows = await db.query<IntentRow>({
    name: `${db.schema}.thread_intents`,
    text: `select * from ${db.schema}.execution_intents where thread_id = any($1::text[]) order by created_at, id`,
    values: [threadIds],
  });
  const intents = new Map(threadIds.map((threadId) => [threadId, [] as ExecutionIntent[]]));
  for (const intent of rows.map(intentFromRow)) intents.get(intent.threadId)?.push(intent);
  return threadIds.map((threadId) => intents.get(threadId) ?? []);
}

/** The newest intent with this reference of the provider's, whatever its state. */
export async function loadIntentByExternalRef(
  db: Queryable,
  { commitment, externalRef }: { readonly commitment: string; readonly externalRef: string },
): Promise<ExecutionIntent | undefined> {
  const [row] = await db.query<IntentRow>({
    text: `select * from ${db.schema}.execution_intents
           where external_ref = $1 and commitment = $2 and kind = 'effect'
           order by created_at desc limit 1`,
    values: [externalRef, commitment],
  });
  return row && intentFromRow(row);
}

/**
 * The `insert … select` that records proposals, for use as one part of a larger statement: the saver
 * puts it beside the checkpoint writes, so that both commit or neither does (G1).
 * It reads its rows from `proposals`, a jsonb array in the form of {@link proposalToRow}, and joins
 * `source`, which has the columns call and thread_id and holds only the calls that may write.
 */
export function insertIntentsSql(schema: string, proposals: string, source: string): string {
  return `insert into ${schema}.execution_intents (
      id, tenant, thread_id, kind, commitment, version, workflow_key, idempotency_key, correlation_id, causation_id,
      trace_id, side_effect_class, approval_class, reversibility_class, sensitivity_class, action_class,
      proposed_by, actor_type, payload, payload_summary, digest, proposed_digest, edit_schema, evidence, min_approvers, required_roles,
      status, semantics, backend, waits, group_id, compensable, not_before, expires_at, external_ref,
      checkpoint_ns, checkpoint_id, task_id, action, changed_by_type, changed_by, created_at, updated_at)
    select p.id, t.tenant, t.thread_id, p.kind, p.commitment, p.version, p.workflow_key, p.idempotency_key,
      t.correlation_id, p.causation_id, coalesce(p.trace_id, t.trace_id),
      p.side_effect_class, p.approval_class, p.reversibility_class, p.sensitivity_class, p.action_class,
      p.proposed_by, p.actor_type, coalesce(p.payload, 'null'), p.payload_summary, p.digest, p.digest, p.edit_schema, p.evidence,
      p.min_approvers, p.required_roles, p.status, p.semantics, p.backend, p.waits, p.group_id, p.compensable,
      ${schema}.clock() + p.delay_ms * interval '1 millisecond',
      ${schema}.clock() + p.expires_in_ms * interval '1 millisecond',
      p.external_ref, p.checkpoint_ns, p.checkpoint_id, p.task_id,
      'intent.recorded', p.actor_type, p.proposed_by,
      -- A statement has one time; a microsecond apart, its intents keep the order in which they were asked for.
      -- A request to undo covers what is older, whatever a clock that was put back says.
      greatest(${schema}.clock() + p.place * interval '1 microsecond', case when p.kind = 'compensation' then
        (select max(e.created_at) from ${schema}.execution_intents e where e.thread_id = t.thread_id) end),
      ${schema}.clock()
    from jsonb_to_recordset(${proposals}) as p(
      call int, place int, id uuid, kind text, commitment text, version int, workflow_key text, idempotency_key text,
      causation_id text, trace_id text, side_effect_class text, approval_class text, reversibility_class text,
      sensitivity_class text, action_class text, proposed_by text, actor_type text, payload jsonb,
      payload_summary text, digest text, edit_schema jsonb, evidence jsonb, min_approvers int, required_roles jsonb,
      status text, semantics text, backend text, waits boolean, group_id uuid, compensable boolean,
      delay_ms float8, expires_in_ms float8, external_ref text, checkpoint_ns text, checkpoint_id text, task_id text)
    join ${source} using (call)
    join ${schema}.threads t on t.thread_id = ${source}.thread_id
    order by p.idempotency_key
    on conflict (id) do nothing`;
}

/** One element of the `proposals` array; `place` is its place in there. */
export function proposalToRow(call: number, proposal: IntentProposal, place: number): Record<string, unknown> {
  return {
    call,
    place,
    id: proposal.id,
    kind: proposal.kind,
    commitment: proposal.commitment,
    version: proposal.version,
    workflow_key: proposal.workflowKey,
    idempotency_key: proposal.idempotencyKey,
    trace_id: proposal.traceId,
    side_effect_class: proposal.classes.sideEffectClass,
    approval_class: proposal.classes.approvalClass,
    reversibility_class: proposal.classes.reversibilityClass,
    sensitivity_class: proposal.classes.sensitivityClass,
    action_class: proposal.classes.actionClass,
    proposed_by: proposal.proposedBy,
    actor_type: proposal.actorType,
    payload: proposal.payload,
    payload_summary: proposal.payloadSummary,
    digest: proposal.digest,
    edit_schema: proposal.editSchema,
    evidence: proposal.evidence,
    min_approvers: proposal.requirement.minApprovers,
    required_roles: proposal.requirement.roles,
    status: proposal.status,
    semantics: proposal.semantics,
    backend: proposal.backend,
    waits: proposal.waits,
    group_id: proposal.groupId,
    compensable: proposal.compensable,
    delay_ms: proposal.delayMs,
    expires_in_ms: proposal.expiresInMs,
    external_ref: proposal.externalRef,
    checkpoint_ns: proposal.checkpointNs,
    checkpoint_id: proposal.checkpointId,
    task_id: proposal.taskId,
  };
}
