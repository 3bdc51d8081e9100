/**
 * The audit trail with fewer statements: a chain begins with its thread, and most batches, which have
 * one entry per thread, are locked, linked and logged by a single statement.
 */
export const linkedAudit = (schema: string): string => `
create or replace function ${schema}.append_audit(entries ${schema}.audit_entry[]) returns void
  language plpgsql as $$
declare
  entry ${schema}.audit_entry;
  chain ${schema}.audit_chains;
  at constant timestamptz := ${schema}.clock();
  appended integer;
begin
  if cardinality(entries) = 1 or cardinality(entries) = (select count(distinct e.thread_id) from unnest(entries) e) then
    with head as materialized (
      select c.thread_id, c.seq, c.hash from ${schema}.audit_chains c
      where c.thread_id = any(array(select e.thread_id from unnest(entries) e))
      order by c.thread_id for no key update
    ), linked as (
      update ${schema}.audit_chains c
        set seq = head.seq + 1, hash = ${schema}.link_hash(head.hash, e, head.seq + 1, at)
        from head join unnest(entries) e on e.thread_id = head.thread_id
        where c.thread_id = head.thread_id
        returning e.*, c.seq, c.hash
    )
    insert into ${schema}.audit_log (thread_id, seq, tenant, at, action, actor_type, actor_id, intent_id,
        commitment, classes, digest, outcome, reason_code, correlation_id, trace_id, attempt, hash)
      select thread_id, seq, tenant, at, action, actor_type, actor_id, intent_id,
        commitment, classes, digest, outcome, reason_code, correlation_id, trace_id, attempt, hash
      from linked;
    get diagnostics appended = row_count;
    if appended < cardinality(entries) then
      raise exception using errcode = 'CS001', message = 'AUDIT_CHAIN_MISSING',
        detail = 'A thread has lost the head of its audit chain: restore ${schema}.audit_chains from a backup';
    end if;
    return;
  end if;
  perform from ${schema}.audit_chains c
    where c.thread_id = any(array(select e.thread_id from unnest(entries) e))
    order by c.thread_id for no key update;
  foreach entry in array entries loop
    if chain.thread_id is distinct from entry.thread_id then
      update ${schema}.audit_chains c set seq = chain.seq, hash = chain.hash where c.thread_id = chain.thread_id;
      select * into strict chain from ${schema}.audit_chains c where c.thread_id = entry.thread_id;
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

create function ${schema}.begin_audit_chains() returns trigger language plpgsql as $$
begin
  insert into ${schema}.audit_chains (thread_id, seq, hash)
    select n.thread_id, 0, ''::bytea from new_row n order by n.thread_id
    on conflict do nothing;
  return null;
end $$;

-- Triggers of one event fire in the order of their names: this one before audit_new.
create trigger audit_begin after insert on ${schema}.threads
  referencing new table as new_row
  for each statement execute function ${schema}.begin_audit_chains();
`;
