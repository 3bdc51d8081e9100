import type pg from "pg";

/** How much history and how much that waits a database is to hold. */
export interface Fill {
  readonly ended: number;
  /** That wait for people; as many again are with a provider. */
  readonly pending: number;
}

/** Intents of one thread, and audit rows of one intent, in a history like that of a real year. */
const PER_THREAD = 4;

/** Of both: an open request and a history have the same kinds, so that the planner cannot tell them apart by those. */
const COLUMNS = `
  tenant, kind, commitment, version, workflow_key, idempotency_key, correlation_id, side_effect_class, approval_class,
  reversibility_class, sensitivity_class, action_class, proposed_by, actor_type, payload, payload_summary, digest,
  proposed_digest, required_roles, semantics, backend, waits, compensable, checkpoint_ns, checkpoint_id, task_id,
  changed_by_type, changed_by`;

/**
 * Fills a migrated schema by SQL: threads, intents, their audit rows and one checkpoint of each thread. The
 * triggers are off meanwhile, and indexes are built at the end: what is measured is not how it got there.
 */
export async function fillHistory(pool: pg.Pool, schema: string, { ended, pending }: Fill): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query(`set session_replication_role = replica; set synchronous_commit = off;
      set maintenance_work_mem = '512MB'; set search_path = ${schema}, public`);
    await client.query("begin");
    const rebuild = await dropIndexes(client, schema);
    // Truncated in the same transaction, the tables need no write-ahead log under wal_level = minimal.
    await client.query("truncate threads, execution_intents, decisions, events, audit_log, audit_chains, checkpoints");
    await insertThreads(client, { ended, pending });
    await insertIntents(client, { ended, pending });
    await insertTrail(client);
    for (const index of rebuild) await client.query(index);
    await client.query("commit");
    await client.query("analyze threads, execution_intents, audit_log, audit_chains, checkpoints");
  } finally {
    client.release(true);
  }
}

/** Drops every index that no constraint needs; returns what makes them anew. */
async function dropIndexes(client: pg.PoolClient, schema: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string; definition: string }>(
    `select indexrelid::regclass::text as name, pg_get_indexdef(indexrelid) as definition
     from pg_index join pg_class c on c.oid = indexrelid
     where c.relnamespace = $1::regnamespace and indrelid::regclass::text = any($2::text[])
       and not exists (select from pg_constraint where conindid = indexrelid)`,
    [schema, ["threads", "execution_intents", "audit_log", "checkpoints"]],
  );
  for (const { name } of rows) await client.query(`drop index ${name}`);
  return rows.map(({ definition }) => definition);
}

async function insertThreads(client: pg.PoolClient, { ended, pending }: Fill): Promise<void> {
  await client.query(
    `insert into threads (thread_id, graph, graph_version, durability, status, correlation_id, proposed_by, input_type,
       input, output_type, output, ready_at, lease_token, created_at, updated_at, ended_at)
     select 'thread-' || lpad(n::text, 9, '0'), 'history', 1, 'durable',
       case when n <= $1 then (array['completed', 'completed', 'completed', 'failed', 'cancelled'])[1 + n % 5] else 'waiting' end,
       'correlation-' || n, 'agent:history', 'json', '{"n":1}', 'json', '{"n":1}', at, 3, at, at,
       case when n <= $1 then at end
     from generate_series(1, $2::int) n, lateral (select now() - interval '1 year' + n * interval '1 second' as at) as time`,
    [Math.ceil(ended / PER_THREAD), Math.ceil((ended + 2 * pending) / PER_THREAD)],
  );
}

async function insertIntents(client: pg.PoolClient, { ended, pending }: Fill): Promise<void> {
  await client.query(
    `insert into execution_intents (id, thread_id, ${COLUMNS}, status, min_approvers, action, not_before, expires_at,
       attempt, lease_token, output, created_at, updated_at, ended_at)
     select id, 'thread-' || lpad(((n - 1) / ${PER_THREAD} + 1)::text, 9, '0'),
       'default', 'effect', 'history.effect', 1, 'history.effect@1', id::text, 'correlation-' || n, 'external_message', 'A1',
       'R2', 'S1', 'gated', 'agent:history', 'automated_workflow',
       jsonb_build_object('to', 'someone@example.org', 'n', n), 'history.effect', md5(n::text), md5(n::text),
       '[["manager"]]', 'at-least-once', 'postgres', true, false, '', '', (1 + n % ${PER_THREAD})::text, 'executor_system', 'history',
       case when n > $2 then 'awaiting_external' when n > $1 then 'awaiting_decision'
            else (array['succeeded', 'succeeded', 'succeeded', 'succeeded', 'failed', 'rejected', 'expired'])[1 + n % 7] end,
       1, 'intent.recorded', case when n > $2 then now() + interval '100 years' else at end,
       case when n > $1 and n <= $2 then now() + interval '2 days' + n * interval '1 millisecond' end,
       case when n > $1 then 0 else 1 end, case when n > $1 then 0 else 1 end,
       case when n <= $1 then '{"messageId":"m-1"}'::jsonb end, at, at, case when n <= $1 then at end
     from generate_series(1, $3::int) n,
       lateral (select now() - interval '1 year' + n * interval '250 milliseconds' as at,
                       (lpad(to_hex(n), 8, '0') || '-0000-4000-8000-000000000000')::uuid as id) as made`,
    [ended, ended + pending, ended + 2 * pending],
  );
}

/** An audit row for each intent, the chains' heads, and a checkpoint for each thread. */
async function insertTrail(client: pg.PoolClient): Promise<void> {
  await client.query(
    `insert into audit_log (thread_id, seq, tenant, at, action, actor_type, actor_id, intent_id, commitment, classes,
       digest, outcome, correlation_id, hash)
     select thread_id, task_id::int, tenant, created_at, action, changed_by_type, changed_by, id,
       workflow_key, 'A1/R2/S1/gated/external_message', digest, status, correlation_id, decode(digest, 'hex')
     from execution_intents`,
  );
  await client.query(
    `insert into audit_chains (thread_id, seq, hash) select thread_id, ${PER_THREAD}, '\\x00' from threads`,
  );
  await client.query(
    `insert into checkpoints (thread_id, checkpoint_ns, checkpoint_id, checkpoint, metadata)
     select thread_id, '', 'checkpoint-' || thread_id, '{"v":4,"channel_versions":{}}', '{}' from threads`,
  );
}
