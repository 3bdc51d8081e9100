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
`;
