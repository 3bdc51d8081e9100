/**
 * What every change of an intent brings with it, in the same transaction and whoever made it:
 * its audit row, the mark that its thread is ready to be driven, the start of a compensation that
 * the graph asked for, and one notification per transaction and kind.
 *
 * The triggers run once per statement, over all its rows, and take their locks in one order
 * (intents, then threads by id, then audit chains by id), so that batches never deadlock each other.
 */
export const consequences = (schema: string): string => `
create type ${schema}.audit_entry as (
  thread_id text, tenant text, action text, actor_type text, actor_id text, intent_id uuid,
  commitment text, classes text, digest text, outcome text, reason_code text,
  correlation_id text, trace_id text, attempt integer);

-- The text that is hashed: a JSON array, so that anybody can rebuild it from an exported row
-- (src/audit.ts does). Times are microseconds since the epoch.
create function ${schema}.audit_text(entry ${schema}.audit_entry, seq integer, at timestamptz) returns text
  language sql stable as $$
  select json_build_array(entry.thread_id, seq, entry.tenant, (extract(epoch from at) * 1000000)::bigint::text,
    entry.action, entry.actor_type, entry.actor_id, entry.intent_id, entry.commitment, entry.classes,
    entry.digest, entry.outcome, entry.reason_code, entry.correlation_id, entry.trace_id, entry.attempt)::text
  $$;

-- One link of a chain. The functions of this kind are stable, not immutable, so that they are inlined.
create function ${schema}.link_hash(head bytea, entry ${schema}.audit_entry, seq integer, at timestamptz) returns bytea
  language sql stable as $$
  select sha256(head || convert_to(${schema}.audit_text(entry, seq, at), 'UTF8'))
  $$;

-- The entries of a thread come in their order. Most batches have one entry per thread: those are linked
-- and logged by one statement; of the others a chain is read and written once per thread.
create function ${schema}.append_audit(entries ${schema}.audit_entry[]) returns void
  language plpgsql as $$
declare
  entry ${schema}.audit_entry;
  chain ${schema}.audit_chains;
  at constant timestamptz := ${schema}.clock();
  threads integer;
  chains integer;
begin
  perform from ${schema}.audit_chains c
    where c.thread_id in (select e.thread_id from unnest(entries) e)
    order by c.thread_id for no key update;
  get diagnostics chains = row_count;
  threads := (select count(distinct e.thread_id) from unnest(entries) e);
  if chains < threads then
    insert into ${schema}.audit_chains (thread_id, seq, hash)
      select distinct e.thread_id, 0, ''::bytea from unnest(entries) e order by e.thread_id
      on conflict do nothing;
    perform from ${schema}.audit_chains c
      where c.thread_id in (select e.thread_id from unnest(entries) e)
      order by c.thread_id for no key update;
  end if;
  if threads = cardinality(entries) then
    with linked as (
      update ${schema}.audit_chains c
        set seq = c.seq + 1, hash = ${schema}.link_hash(c.hash, e, c.seq + 1, at)
        from unnest(entries) e where c.thread_id = e.thread_id
        returning e.*, c.seq, c.hash
    )
    insert into ${schema}.audit_log (thread_id, seq, tenant, at, action, actor_type, actor_id, intent_id,
        commitment, classes, digest, outcome, reason_code, correlation_id, trace_id, attempt, hash)
      select thread_id, seq, tenant, at, action, actor_type, actor_id, intent_id,
        commitment, classes, digest, outcome, reason_code, correlation_id, trace_id, attempt, hash
      from linked;
    return;
  end if;
  foreach entry in array entries loop
    if chain.thread_id is distinct from entry.thread_id then
      update ${schema}.audit_chains c set seq = chain.seq, hash = chain.hash where c.thread_id = chain.thread_id;
      select * into chain from ${schema}.audit_chains c where c.thread_id = entry.thread_id;
    end if;
    chain.seq := chain.seq + 1;
    chain.hash := ${schema}.link_hash(chain.hash, entry, chain.seq, at);
    insert into ${schema}.audit_log (thread_id, seq, tenant, at, action, actor_type, actor_id, intent_id,
        commitment, classes, digest, outcome, reason_code, correlation_id, trace_id, attempt, hash)
      values (entry.thread_id, chain.seq, entry.tenant, at, entry.action, entry.actor_type, entry.actor_id,
        entry.intent_id, entry.commitment, entry.classes, entry.digest, entry.outcome, entry.reason_code,
        entry.correlation_id, entry.trace_id, entry.attempt, chain.hash);
  end loop;
  update ${schema}.audit_chains c set seq = chain.seq, hash = chain.hash where c.thread_id = chain.thread_id;
end $$;

create function ${schema}.audit_entry_of(i ${schema}.execution_intents) returns ${schema}.audit_entry
  language sql stable as $$
  select row(i.thread_id, i.tenant, i.action, i.changed_by_type, i.changed_by, i.id, i.workflow_key,
    concat_ws('/', i.approval_class, i.reversibility_class, i.sensitivity_class, i.action_class, i.side_effect_class),
    i.digest, i.status, i.reason_code, i.correlation_id, i.trace_id, i.attempt)::${schema}.audit_entry
  $$;

create function ${schema}.notify(topic text) returns void language sql as $$
  select pg_notify('${schema}', topic)
  $$;

create function ${schema}.after_new_intents() returns trigger language plpgsql as $$
declare
  entries ${schema}.audit_entry[];
begin
  select array_agg(${schema}.audit_entry_of(i) order by i.thread_id, i.created_at, i.id)
    into entries from new_row i;
  if entries is null then return null; end if;
  update ${schema}.threads t set compensation_due = true
    from (select thread_id from ${schema}.threads
          where thread_id in (select i.thread_id from new_row i where i.kind = 'compensation' and i.compensates is null)
          order by thread_id for no key update) due
    where t.thread_id = due.thread_id;
  perform ${schema}.append_audit(entries);
  if exists (select from new_row where status = 'runnable') then perform ${schema}.notify('runnable'); end if;
  if exists (select from new_row where kind = 'timer' or expires_at is not null) then perform ${schema}.notify('due'); end if;
  perform ${schema}.notify('changed');
  return null;
end $$;

create function ${schema}.after_changed_intents() returns trigger language plpgsql as $$
declare
  entries ${schema}.audit_entry[];
  any_ended boolean;
  any_refused boolean;
  any_runnable boolean;
  any_visible boolean;
  any_deadline boolean;
begin
  select array_agg(${schema}.audit_entry_of(n) order by n.thread_id, n.id),
         bool_or(${schema}.has_ended(n.status) and not ${schema}.has_ended(o.status)),
         bool_or(n.status <> o.status and n.status in ('rejected', 'expired', 'failed')),
         bool_or(n.status = 'runnable'),
         bool_or(n.status <> 'dispatched'),
         bool_or(n.expires_at is not null and n.expires_at is distinct from o.expires_at)
    into entries, any_ended, any_refused, any_runnable, any_visible, any_deadline
    from new_row n join old_row o using (id) where n.revision <> o.revision;
  if entries is null then return null; end if;

  if any_ended then
    update ${schema}.threads t set
        wake = t.wake + ended.waited,
        status = case when t.status = 'waiting' and ended.waited = 1 then 'ready' else t.status end,
        ready_at = case when t.status = 'waiting' and ended.waited = 1 then ${schema}.clock() else t.ready_at end,
        compensation_due = t.compensation_due or ended.compensation,
        updated_at = ${schema}.clock()
      from (
        select locked.thread_id, max((n.waits)::int) as waited,
               bool_or(n.kind = 'compensation' or exists (
                 select from ${schema}.execution_intents c
                 where c.thread_id = n.thread_id and c.kind = 'compensation'
                   and c.compensates is null and c.status = 'awaiting_external')) as compensation
        from new_row n join old_row o using (id)
        join (select thread_id from ${schema}.threads
              where thread_id in (select thread_id from new_row) order by thread_id for no key update) locked
          on locked.thread_id = n.thread_id
        where ${schema}.has_ended(n.status) and not ${schema}.has_ended(o.status)
        group by locked.thread_id
      ) ended
      where t.thread_id = ended.thread_id;
  end if;

  perform ${schema}.append_audit(entries);

  -- onReject and onFailure: "compensate" start here, in the transaction of the rejection itself (G5).
  if any_refused then
    insert into ${schema}.execution_intents (id, tenant, thread_id, kind, commitment, version, workflow_key,
        idempotency_key, correlation_id, causation_id, trace_id, side_effect_class, approval_class,
        reversibility_class, sensitivity_class, action_class, proposed_by, actor_type, payload, payload_summary,
        digest, proposed_digest, min_approvers, required_roles, status, semantics, waits, compensable, not_before,
        checkpoint_ns, checkpoint_id, task_id, action, changed_by_type, changed_by, reason_code, created_at, updated_at)
      select distinct on (n.thread_id) c.id, n.tenant, n.thread_id, 'compensation', 'countersign.compensation', 1,
        'countersign.compensation@1', c.id::text, n.correlation_id, n.id::text, n.trace_id, 'none', 'A0', 'R0', 'S1', 'auto',
        'countersign', 'automated_workflow', jsonb_build_object('reason', n.status, 'group', case when t.on_reject is null and t.on_failure is null then n.group_id end), 'Undo what this thread did', '', '',
        0, '[]', 'awaiting_external', 'at-least-once', false, false, timestamptz '9999-12-31',
        '', '', '', 'compensation.started', 'automated_workflow', 'countersign', n.status, ${schema}.clock(), ${schema}.clock()
      from new_row n join old_row o using (id) join ${schema}.threads t on t.thread_id = n.thread_id,
        lateral (select gen_random_uuid() as id) c
      where n.status <> o.status and n.kind in ('effect', 'decision')
        and ((t.on_reject = 'compensate' and n.status in ('rejected', 'expired'))
          or (t.on_failure = 'compensate' and n.status = 'failed')
          -- Of a commitAll that was rejected, what ran already is undone, whatever the graph says (rule 17).
          or (n.group_id is not null and n.status in ('rejected', 'expired')))
        and not exists (
          select from ${schema}.execution_intents open
          where open.thread_id = n.thread_id and open.kind = 'compensation'
            and open.compensates is null and open.status = 'awaiting_external')
      order by n.thread_id;
  end if;

  if any_runnable then perform ${schema}.notify('runnable'); end if;
  if any_visible then perform ${schema}.notify('changed'); end if;
  if any_deadline then perform ${schema}.notify('due'); end if;
  return null;
end $$;

-- How a thread whose graph has ended stands: with its compensation, if there is one. To undo a rejected
-- commitAll is no compensation of the thread: what it did else stands.
create function ${schema}.end_status(thread text) returns text language sql stable as $$
  select case
    when exists (select from ${schema}.execution_intents where thread_id = thread and kind = 'compensation'
                 and compensates is null and status = 'awaiting_external') then 'compensating'
    when exists (select from ${schema}.execution_intents where thread_id = thread
                 and compensates is not null and status = 'failed') then 'compensation_failed'
    when exists (select from ${schema}.execution_intents where thread_id = thread and kind = 'compensation'
                 and compensates is null and payload ->> 'group' is null) then 'compensated'
    else 'completed' end
  $$;

-- Of a thread's own life only its milestones are audited: leases come and go.
create function ${schema}.audit_threads() returns trigger language plpgsql as $$
declare
  entries ${schema}.audit_entry[];
  any_ready boolean;
  any_ended boolean;
  any_due boolean;
begin
  if tg_op = 'INSERT' then
    select array_agg(row(n.thread_id, n.tenant, 'thread.started', 'automated_workflow', n.proposed_by, null,
        n.graph || '@' || n.graph_version, null, null, n.status, null, n.correlation_id, n.trace_id, null
      )::${schema}.audit_entry order by n.thread_id), bool_or(n.status = 'ready')
      into entries, any_ready from new_row n;
  else
    select array_agg(row(n.thread_id, n.tenant,
          case when n.status in ('ready', 'running') then 'thread.retried' else 'thread.' || n.status end,
          n.changed_by_type, coalesce(n.changed_by, n.lease_owner, 'countersign'), null,
          n.graph || '@' || n.graph_version, null, null, n.status, n.error ->> 'reasonCode', n.correlation_id, n.trace_id, null
        )::${schema}.audit_entry order by n.thread_id)
        filter (where n.status <> o.status
          and (n.status not in ('ready', 'running', 'waiting') or o.status in ('failed', 'lost'))),
      -- Also of one that was ready before: a driver that came meanwhile has skipped its locked row.
      bool_or(n.status = 'ready'),
      bool_or(n.status <> o.status and n.status not in ('ready', 'running', 'waiting', 'compensating')),
      bool_or(n.compensation_due and not o.compensation_due)
      into entries, any_ready, any_ended, any_due
      from new_row n join old_row o using (thread_id);
  end if;
  if entries is not null then
    perform ${schema}.append_audit(entries);
    perform ${schema}.notify('changed');
  end if;
  if any_ready then perform ${schema}.notify('ready'); end if;
  if any_ended then perform ${schema}.notify('ended'); end if;
  if any_due then perform ${schema}.notify('due'); end if;
  return null;
end $$;

create trigger audit_new after insert on ${schema}.threads
  referencing new table as new_row
  for each statement execute function ${schema}.audit_threads();
create trigger audit_changed after update on ${schema}.threads
  referencing old table as old_row new table as new_row
  for each statement execute function ${schema}.audit_threads();
create trigger after_new after insert on ${schema}.execution_intents
  referencing new table as new_row
  for each statement execute function ${schema}.after_new_intents();
create trigger after_changed after update on ${schema}.execution_intents
  referencing old table as old_row new table as new_row
  for each statement execute function ${schema}.after_changed_intents();
`;
