import type { AuditRow } from "../audit.ts";
import type { Queryable } from "./client.ts";

interface LogRow {
  readonly [column: string]: unknown;
}

/** The audit rows of a thread after the given one, in their order. */
export async function loadAudit(
  db: Queryable,
  {
    threadId,
    afterSeq = 0,
    limit = 1_000,
  }: { readonly threadId: string; readonly afterSeq?: number; readonly limit?: number },
): Promise<AuditRow[]> {
  const rows = await db.query<LogRow>({
    name: `${db.schema}.audit`,
    text: `select *, (extract(epoch from at) * 1000000)::bigint::text as at_us, encode(hash, 'hex') as hash_hex
           from ${db.schema}.audit_log where thread_id = $1 and seq > $2 order by seq limit $3`,
    values: [threadId, afterSeq, limit],
  });
  return rows.map((row) => ({
    threadId: row.thread_id as string,
    seq: row.seq as number,
    tenant: row.tenant as string,
    at: row.at as Date,
    atMicroseconds: row.at_us as string,
    action: row.action as string,
    actorType: row.actor_type as string,
    actorId: row.actor_id as string,
    intentId: row.intent_id as string | null,
    commitment: row.commitment as string | null,
    classes: row.classes as string | null,
    digest: row.digest as string | null,
    outcome: row.outcome as string | null,
    reasonCode: row.reason_code as string | null,
    correlationId: row.correlation_id as string,
    traceId: row.trace_id as string | null,
    attempt: row.attempt as number | null,
    hash: row.hash_hex as string,
  }));
}

/** Where each chain stands, by which a cut-off end is noticed. */
export async function loadChainHeads(
  db: Queryable,
  threadId?: string,
): Promise<{ threadId: string; seq: number; hash: string }[]> {
  const rows = await db.query<{ thread_id: string; seq: number; hash: string }>({
    text: `select thread_id, seq, encode(hash, 'hex') as hash from ${db.schema}.audit_chains
           ${threadId === undefined ? "" : "where thread_id = $1"} order by thread_id`,
    values: threadId === undefined ? [] : [threadId],
  });
  return rows.map((row) => ({ threadId: row.thread_id, seq: row.seq, hash: row.hash }));
}

/** An audit row that belongs to no change of an intent's state. */
export interface AuditNote {
  readonly threadId: string;
  readonly action: "intent.diverged" | "policy.denied" | "thread.forked";
  readonly actorId: string;
  readonly intentId: string | null;
  readonly commitment: string | null;
  readonly digest: string | null;
  readonly reasonCode: string | null;
}

export async function appendAuditNotes(db: Queryable, notes: readonly AuditNote[]): Promise<void> {
  if (notes.length === 0) return;
  await db.query({
    text: `select ${db.schema}.append_audit(array_agg(row(t.thread_id, t.tenant, n.action, 'automated_workflow', n.actor_id,
        n.intent_id, n.commitment, null, n.digest, null, n.reason_code, t.correlation_id, t.trace_id, null
      )::${db.schema}.audit_entry order by t.thread_id))
      from jsonb_to_recordset($1::jsonb) as n(
        thread_id text, action text, actor_id text, intent_id uuid, commitment text, digest text, reason_code text)
      join ${db.schema}.threads t using (thread_id)`,
    values: [
      JSON.stringify(
        notes.map((note) => ({
          thread_id: note.threadId,
          action: note.action,
          actor_id: note.actorId,
          intent_id: note.intentId,
          commitment: note.commitment,
          digest: note.digest,
          reason_code: note.reasonCode,
        })),
      ),
    ],
  });
}
