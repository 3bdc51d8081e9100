import type pg from "pg";

/**
 * What the audit trail alone shows (G7): a worker that recorded how a dispatch ended although another
 * one had claimed the intent since; and an intent that was recorded, or ended, more than once.
 */
export async function settlementsByStrangers(pool: pg.Pool, schema: string): Promise<string[]> {
  const { rows } = await pool.query<{ intent_id: string; what: string }>(
    `with step as (
       select intent_id, seq, action, actor_id, reason_code,
         max(seq) filter (where action = 'intent.claimed') over (partition by intent_id order by seq) as claim
       from ${schema}.audit_log where intent_id is not null
     )
     select step.intent_id, 'was settled by ' || step.actor_id || ', claimed by ' || claimed.actor_id as what
     from step join ${schema}.audit_log claimed on claimed.intent_id = step.intent_id and claimed.seq = step.claim
     where step.action in ('intent.attempted', 'intent.pending', 'intent.succeeded', 'intent.failed', 'intent.unknown')
       and coalesce(step.reason_code, '') not in ('worker_lost', 'completed', 'failed', 'polled')
       and step.actor_id <> claimed.actor_id
     union all
     select intent_id, action || ' ' || count(*) || ' times' from step
     where action in ('intent.recorded', 'intent.succeeded', 'decision.rejected', 'compensation.succeeded')
     group by intent_id, action having count(*) > 1`,
  );
  return rows.map((row) => `${row.intent_id} ${row.what}`);
}
