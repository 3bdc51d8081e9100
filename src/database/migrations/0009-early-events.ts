/**
 * An event and the wait for it meet in the transaction that brings the second of the two. Whoever records
 * the wait holds its thread's row, and so does whoever sends the event: the second one sees the first.
 * Nothing is left to do afterwards that a crash could prevent.
 */
export const earlyEvents = (schema: string): string => `
-- Gives the oldest unanswered events of a thread to its oldest waits of the same name, one each.
create function ${schema}.match_events(thread text) returns void language plpgsql as $$
begin
  with wait as (
    select id, commitment as name, row_number() over (partition by commitment order by created_at, id) as n
    from ${schema}.execution_intents
    where thread_id = thread and kind = 'event' and status = 'awaiting_external'
  ), arrived as (
    select name, event_id, payload, row_number() over (partition by name order by received_at, event_id) as n
    from ${schema}.events where thread_id = thread and consumed_by is null
  ), met as (
    select wait.id, arrived.name, arrived.event_id, arrived.payload from wait join arrived using (name, n)
  ), consumed as (
    update ${schema}.events e set consumed_by = met.id from met
    where e.thread_id = thread and e.name = met.name and e.event_id = met.event_id
  )
  update ${schema}.execution_intents i set
    status = 'succeeded', output = met.payload, revision = revision + 1, action = 'intent.succeeded',
    changed_by_type = 'automated_workflow', changed_by = 'countersign', reason_code = null, causation_id = met.event_id
  from met where i.id = met.id;
end $$;

create function ${schema}.match_new_waits() returns trigger language plpgsql as $$
begin
  perform ${schema}.match_events(heard.thread_id)
    from (select distinct i.thread_id from new_row i where i.kind = 'event') heard;
  return null;
end $$;

-- Triggers of one event fire in the order of their names: this one after after_new, so that a wait is
-- audited as recorded before it has ended, and all locks are held already.
create trigger match_new after insert on ${schema}.execution_intents
  referencing new table as new_row
  for each statement execute function ${schema}.match_new_waits();
`;
