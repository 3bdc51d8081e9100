import type { ExecutionIntent } from "../intent.ts";
import type { Queryable } from "./client.ts";
import { loadThreadIntents } from "./intents.ts";

/** Threads in which something is to be undone, or a step of that has ended. */
export async function loadThreadsToCompensate(db: Queryable, limit: number): Promise<string[]> {
  const rows = await db.query<{ thread_id: string }>({
    name: `${db.schema}.compensation_due`,
    text: `select thread_id from ${db.schema}.threads where compensation_due limit $1`,
    values: [limit],
  });
  return rows.map((row) => row.thread_id);
}

/**
 * All intents of a thread, with nothing able to change them or to add to them until the transaction
 * ends: its intents are locked in the order of their ids, then its own row, without which no driver
 * records anything; only then are they read. Only one that was recorded between the two locks can
 * still be claimed and settled by a worker.
 */
export async function lockThreadIntents(tx: Queryable, threadId: string): Promise<ExecutionIntent[]> {
  await tx.query({
    text: `select from ${tx.schema}.execution_intents where thread_id = $1 order by id for no key update`,
    values: [threadId],
  });
  await tx.query({
    text: `select from ${tx.schema}.threads where thread_id = $1 for no key update`,
    values: [threadId],
  });
  return loadThreadIntents(tx, threadId);
}

/** Records the step that undoes an effect, runnable at once, and marks the effect. */
export async function insertCompensationStep(
  tx: Queryable,
  { effect, request }: { readonly effect: ExecutionIntent; readonly request: ExecutionIntent },
): Promise<void> {
  await tx.query({
    text: `insert into ${tx.schema}.execution_intents (
        id, tenant, thread_id, kind, commitment, version, workflow_key, idempotency_key, correlation_id, causation_id,
        trace_id, side_effect_class, approval_class, reversibility_class, sensitivity_class, action_class,
        proposed_by, actor_type, payload, payload_summary, digest, proposed_digest, min_approvers, required_roles, status,
        semantics, backend, waits, compensable, compensates, not_before, checkpoint_ns, checkpoint_id, task_id,
        action, changed_by_type, changed_by, created_at, updated_at)
      select step.id, e.tenant, e.thread_id, 'compensation', e.commitment, e.version, e.workflow_key, step.id::text,
        e.correlation_id, r.id::text, e.trace_id, e.side_effect_class, e.approval_class, e.reversibility_class,
        e.sensitivity_class, e.action_class, e.proposed_by, 'automated_workflow', r.payload, e.payload_summary,
        e.digest, e.digest, 0, '[]', 'runnable', 'at-least-once', e.backend, false, false, e.id, ${tx.schema}.clock(),
        e.checkpoint_ns, e.checkpoint_id, e.task_id, 'intent.recorded', 'automated_workflow', 'countersign',
        ${tx.schema}.clock(), ${tx.schema}.clock()
      from ${tx.schema}.execution_intents e, ${tx.schema}.execution_intents r, lateral (select gen_random_uuid() as id) step
      where e.id = $1 and r.id = $2::uuid
      on conflict (compensates) where compensates is not null do nothing`,
    values: [effect.id, request.id],
  });
  if (effect.status === "succeeded")
    await moveEffect(tx, { effect, status: "compensating", action: "compensation.started" });
}

/** Moves an effect along its compensation. */
export async function moveEffect(
  tx: Queryable,
  input: {
    readonly effect: ExecutionIntent;
    readonly status: "compensating" | "compensated" | "compensation_failed";
    readonly action: string;
  },
): Promise<void> {
  await endQuietly(tx, { id: input.effect.id, status: input.status, action: input.action });
}

/** Ends a request to undo, when all of its steps have. */
export async function endCompensation(
  tx: Queryable,
  { request, status }: { readonly request: ExecutionIntent; readonly status: "succeeded" | "failed" },
): Promise<void> {
  await endQuietly(tx, { id: request.id, status, action: `compensation.${status}` });
}

async function endQuietly(
  tx: Queryable,
  { id, status, action }: { readonly id: string; readonly status: string; readonly action: string },
): Promise<void> {
  await tx.query({
    text: `update ${tx.schema}.execution_intents set status = $2, revision = revision + 1, action = $3,
             changed_by_type = 'automated_workflow', changed_by = 'countersign', reason_code = null where id = $1`,
    values: [id, status, action],
  });
}

/**
 * Notes that nothing is due for now. A thread whose graph has ended ends with its compensation: as
 * `compensated`, or as `compensation_failed` where an effect could not be undone.
 */
export async function settleThreadCompensation(
  tx: Queryable,
  { threadId, open }: { readonly threadId: string; readonly open: boolean },
): Promise<void> {
  await tx.query({
    text: `update ${tx.schema}.threads t set compensation_due = false,
        status = case when t.status in ('completed', 'compensating', 'compensated', 'compensation_failed')
                           and not (t.status = 'completed' and $2) then ${tx.schema}.end_status(t.thread_id)
                      else t.status end,
        ended_at = case when t.status = 'compensating' and not $2 then ${tx.schema}.clock() else t.ended_at end,
        updated_at = ${tx.schema}.clock()
      where t.thread_id = $1`,
    values: [threadId, open],
  });
}
