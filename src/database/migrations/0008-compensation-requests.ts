/**
 * A rejection is undone also where an earlier one of the same thread is still being undone, and each group
 * of its own; and a rejected commitAll takes the rest of its thread along only where the graph said so of
 * rejections.
 */
export const compensationRequests = (schema: string): string => `
create or replace function ${schema}.after_changed_intents() returns trigger language plpgsql as $$
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

  -- onReject and onFailure: "compensate" start here, in the transaction of the rejection itself (G5). Of a
  -- commitAll that was rejected, what ran already is undone, whatever the graph says (rule 17). An open request
  -- makes another one needless only where it covers what was refused now: src/compensation.ts, covers().
  if any_refused then
    insert into ${schema}.execution_intents (id, tenant, thread_id, kind, commitment, version, workflow_key,
        idempotency_key, correlation_id, causation_id, trace_id, side_effect_class, approval_class,
        reversibility_class, sensitivity_class, action_class, proposed_by, actor_type, payload, payload_summary,
        digest, proposed_digest, min_approvers, required_roles, status, semantics, waits, compensable, not_before,
        checkpoint_ns, checkpoint_id, task_id, action, changed_by_type, changed_by, reason_code, created_at, updated_at)
      select distinct on (n.thread_id, asked.of_group) c.id, n.tenant, n.thread_id, 'compensation', 'countersign.compensation', 1,
        'countersign.compensation@1', c.id::text, n.correlation_id, n.id::text, n.trace_id, 'none', 'A0', 'R0', 'S1', 'auto',
        'countersign', 'automated_workflow', jsonb_build_object('reason', n.status, 'group', asked.of_group), 'Undo what this thread did', '', '',
        0, '[]', 'awaiting_external', 'at-least-once', false, false, timestamptz '9999-12-31',
        '', '', '', 'compensation.started', 'automated_workflow', 'countersign', n.status, c.at, ${schema}.clock()
      from new_row n join old_row o using (id) join ${schema}.threads t on t.thread_id = n.thread_id,
        lateral (select t.on_reject = 'compensate' and n.status in ('rejected', 'expired')
                     or t.on_failure = 'compensate' and n.status = 'failed' as of_thread) wish,
        lateral (select case when wish.of_thread then null else n.group_id end as of_group) asked,
        -- Later than all that it covers, also where a transaction that began after this one was faster.
        lateral (select gen_random_uuid() as id, greatest(${schema}.clock(), max(e.created_at)) as at
                 from ${schema}.execution_intents e where e.thread_id = n.thread_id) c
      where n.status <> o.status and n.kind in ('effect', 'decision')
        and (wish.of_thread or n.group_id is not null and n.status in ('rejected', 'expired'))
        and not exists (
          select from ${schema}.execution_intents open
          where open.thread_id = n.thread_id and open.kind = 'compensation'
            and open.compensates is null and open.status = 'awaiting_external'
            and n.created_at <= open.created_at
            and (open.payload ->> 'group' is null or open.payload ->> 'group' = asked.of_group::text))
      order by n.thread_id, asked.of_group;
  end if;

  if any_runnable then perform ${schema}.notify('runnable'); end if;
  if any_visible then perform ${schema}.notify('changed'); end if;
  if any_deadline then perform ${schema}.notify('due'); end if;
  return null;
end $$;
`;
