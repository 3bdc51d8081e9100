/** What was called, and given up before anybody knew its outcome, is possibly done and can be undone (rule 16). */
export const possiblyDone = (schema: string): string => `
create or replace function ${schema}.guard_new_intent() returns trigger language plpgsql as $$
begin
  if new.status not in ('recorded', 'awaiting_decision', 'runnable')
     and not (new.status = 'awaiting_external' and new.kind in ('event', 'timer', 'compensation')) then
    perform ${schema}.refuse('ILLEGAL_TRANSITION', new.id, 'a new intent cannot be ' || new.status);
  end if;
  if new.status = 'runnable' and not ${schema}.is_executable(new) then
    perform ${schema}.refuse('ILLEGAL_TRANSITION', new.id, 'nothing carries out an intent of kind ' || new.kind);
  end if;
  if new.compensates is not null and not exists (
       select from ${schema}.execution_intents e where e.id = new.compensates and e.kind = 'effect'
         and e.thread_id = new.thread_id and e.workflow_key = new.workflow_key
         and (e.status in ('succeeded', 'compensating') or e.status in ('cancelled', 'expired') and e.external_ref is not null
              or e.status = 'cancelled' and e.attempt > 0)) then
    perform ${schema}.refuse('ILLEGAL_TRANSITION', new.id, 'what was not done is not undone');
  end if;
  if new.status = 'runnable' and not ${schema}.is_approved(new) then
    perform ${schema}.refuse('NOT_APPROVED', new.id, 'runnable without its decisions');
  end if;
  perform ${schema}.guard_idempotency_key(new);
  return new;
end $$;

-- Whether what a commitAll or a thread did is to be undone: one of the group was rejected or has expired, or
-- somebody asked for it. Volatile, like all that a statement asks about other rows after it has waited.
create function ${schema}.is_let_end(i ${schema}.execution_intents) returns boolean language plpgsql volatile as $$
begin
  return exists (
    select from ${schema}.execution_intents s where s.group_id = i.group_id and s.status in ('rejected', 'expired')
  ) or exists (
    select from ${schema}.execution_intents r
    where r.thread_id = i.thread_id and r.kind = 'compensation' and r.compensates is null
      and (r.payload ->> 'group' is null or r.payload ->> 'group' = i.group_id::text) and r.created_at >= i.created_at
  );
end $$;

-- Whether what an intent belongs to was given up: nothing would undo it any more.
create function ${schema}.is_given_up(i ${schema}.execution_intents) returns boolean language plpgsql volatile as $$
begin
  return ${schema}.is_let_end(i)
    or exists (select from ${schema}.execution_intents s
               where s.group_id = i.group_id and s.id <> i.id and s.status = 'cancelled')
    or exists (select from ${schema}.threads t where t.thread_id = i.thread_id and t.status = 'cancelled');
end $$;
`;
