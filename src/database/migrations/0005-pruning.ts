/**
 * Deleting, which is possible for whole threads that have ended and in no other way: rows of the
 * outbox, decisions and the audit trail stay, whoever asks, unless `prune()` itself takes them away.
 */
export const pruning = (schema: string): string => `
create index threads_ended on ${schema}.threads (ended_at) where ended_at is not null;
-- Without it each deleted intent would cost a look through all events.
create index events_consumed_by on ${schema}.events (consumed_by) where consumed_by is not null;

-- True inside prune() only: nobody else knows of the setting, and it ends with the function.
create function ${schema}.is_pruning() returns boolean language sql stable as $$
  select coalesce(current_setting('${schema}.pruning', true), '') = 'on'
  $$;

create or replace function ${schema}.refuse_change() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' and ${schema}.is_pruning() then return old; end if;
  raise exception using errcode = 'CS001', message = 'APPEND_ONLY',
    detail = tg_table_name || ' is append-only; what has ended goes with prune()';
end $$;

create trigger no_delete before delete on ${schema}.execution_intents
  for each row execute function ${schema}.refuse_change();
create trigger no_truncate before truncate on ${schema}.execution_intents
  for each statement execute function ${schema}.refuse_change();

-- A thread that has ended and of which nothing is owed any more. A compensation that failed is owed: a
-- person has yet to settle it.
create function ${schema}.is_prunable(t ${schema}.threads, ended_before timestamptz) returns boolean
  language sql stable as $$
  select t.ended_at < ended_before and t.status in ('completed', 'compensated', 'cancelled', 'lost')
     and not t.compensation_due
     and not exists (select from ${schema}.execution_intents i where i.thread_id = t.thread_id
                     and (not ${schema}.has_ended(i.status) or i.status in ('compensating', 'compensation_failed')))
  $$;

-- Takes away at most so many threads, with everything of theirs; their audit rows stay, one more among
-- them, or go as well. Locks like everybody else: intents by id, then threads by id.
create function ${schema}.prune(ended_before timestamptz, keep_audit boolean, at_most integer)
  returns table (threads integer, intents integer) language plpgsql set "${schema}.pruning" = 'on' as $$
declare
  ids text[];
  intent_ids uuid[];
begin
  ids := array(select t.thread_id from ${schema}.threads t
               where t.ended_at < ended_before and ${schema}.is_prunable(t, ended_before)
               order by t.ended_at limit at_most);
  perform from ${schema}.execution_intents i where i.thread_id = any(ids) order by i.id for update;
  perform from ${schema}.threads t where t.thread_id = any(ids) order by t.thread_id for update;
  ids := array(select t.thread_id from ${schema}.threads t
               where t.thread_id = any(ids) and ${schema}.is_prunable(t, ended_before));
  intent_ids := array(select i.id from ${schema}.execution_intents i where i.thread_id = any(ids));
  if keep_audit then
    perform ${schema}.append_audit(array_agg(row(t.thread_id, t.tenant, 'thread.pruned', 'automated_workflow',
        'countersign', null, t.graph || '@' || t.graph_version, null, null, t.status, null, t.correlation_id,
        t.trace_id, null)::${schema}.audit_entry order by t.thread_id))
      from ${schema}.threads t where t.thread_id = any(ids) having count(*) > 0;
  else
    delete from ${schema}.audit_log a where a.thread_id = any(ids);
    delete from ${schema}.audit_chains a where a.thread_id = any(ids);
  end if;
  delete from ${schema}.events e where e.thread_id = any(ids);
  delete from ${schema}.decisions d where d.intent_id = any(intent_ids);
  delete from ${schema}.execution_intents i where i.id = any(intent_ids);
  delete from ${schema}.checkpoint_writes c where c.thread_id = any(ids);
  delete from ${schema}.checkpoint_blobs c where c.thread_id = any(ids);
  delete from ${schema}.checkpoints c where c.thread_id = any(ids);
  delete from ${schema}.threads t where t.thread_id = any(ids);
  return query select coalesce(cardinality(ids), 0), coalesce(cardinality(intent_ids), 0);
end $$;
`;
