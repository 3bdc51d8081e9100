/**
 * The state machine of an intent, as the database enforces it (design §4).
 *
 * Whoever writes, by whatever statement: a row moves only along a legal edge, becomes runnable only
 * when its decisions are complete for the digest that it carries now (G2, G3), never changes what
 * was approved, and its payload is fixed once nobody is asked about it any more.
 */
export const stateMachine = (schema: string): string => `
create function ${schema}.is_legal_move(before text, after text) returns boolean
  language sql immutable as $$
  select (before, after) in (
    ('recorded', 'awaiting_decision'), ('recorded', 'runnable'), ('recorded', 'cancelled'),
    ('awaiting_decision', 'runnable'), ('awaiting_decision', 'succeeded'), ('awaiting_decision', 'rejected'),
    ('awaiting_decision', 'expired'), ('awaiting_decision', 'cancelled'),
    ('runnable', 'dispatched'), ('runnable', 'cancelled'),
    ('dispatched', 'succeeded'), ('dispatched', 'awaiting_external'), ('dispatched', 'runnable'),
    ('dispatched', 'unknown'), ('dispatched', 'failed'), ('dispatched', 'cancelled'),
    ('awaiting_external', 'succeeded'), ('awaiting_external', 'failed'),
    ('awaiting_external', 'expired'), ('awaiting_external', 'cancelled'),
    ('unknown', 'succeeded'), ('unknown', 'runnable'), ('unknown', 'failed'),
    ('failed', 'runnable'), ('failed', 'awaiting_decision'),
    ('succeeded', 'compensating'),
    ('compensating', 'compensated'), ('compensating', 'compensation_failed'),
    ('compensation_failed', 'compensating'))
  $$;

create function ${schema}.has_ended(status text) returns boolean
  language sql immutable as $$
  select status in ('succeeded', 'failed', 'rejected', 'expired', 'cancelled',
                    'compensating', 'compensated', 'compensation_failed')
  $$;

-- Enough distinct people approved exactly this digest, the proposer not among them for A2 and above,
-- and every role is filled by a person of their own. No word on the people is taken from the intent.
create function ${schema}.has_its_approvals(intent ${schema}.execution_intents) returns boolean
  language sql stable as $$
  with recursive approver as (
    select principal_id, principal_roles from ${schema}.decisions
    where intent_id = intent.id and round = intent.decision_round and digest = intent.digest and verdict in ('approve', 'edit')
      and (principal_id <> intent.proposed_by or intent.approval_class in ('A0', 'A1'))
  ), role as (
    select ordinality::int as n, array(select jsonb_array_elements_text(value)) as names
    from jsonb_array_elements(intent.required_roles) with ordinality
  ), filled(n, used) as (
    select 0, array[]::text[]
    union all
    select role.n, filled.used || approver.principal_id
    from filled
    join role on role.n = filled.n + 1
    join approver on approver.principal_roles && role.names and approver.principal_id <> all(filled.used)
  )
  select (select count(*) from approver) >= intent.min_approvers
     and exists (select from filled where n = (select count(*) from role))
  $$;

-- Nothing to look up where nobody is asked. Of its own, so that it is inlined and costs nothing there.
create function ${schema}.is_approved(intent ${schema}.execution_intents) returns boolean
  language sql stable as $$
  select intent.min_approvers = 0 and intent.required_roles = '[]' or ${schema}.has_its_approvals(intent)
  $$;

create function ${schema}.refuse(code text, intent_id uuid, detail text) returns void
  language plpgsql as $$
begin
  raise exception using errcode = 'CS001', message = code, detail = intent_id || ': ' || detail;
end $$;

-- A backend claims by commitment: a row of another kind would run the handler without any approval.
create function ${schema}.is_executable(intent ${schema}.execution_intents) returns boolean
  language sql immutable as $$
  select intent.kind = 'effect' or intent.kind = 'compensation' and intent.compensates is not null
  $$;

create function ${schema}.guard_new_intent() returns trigger language plpgsql as $$
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
         and (e.status in ('succeeded', 'compensating') or e.status in ('cancelled', 'expired') and e.external_ref is not null)) then
    perform ${schema}.refuse('ILLEGAL_TRANSITION', new.id, 'what was not done is not undone');
  end if;
  if new.status = 'runnable' and not ${schema}.is_approved(new) then
    perform ${schema}.refuse('NOT_APPROVED', new.id, 'runnable without its decisions');
  end if;
  perform ${schema}.guard_idempotency_key(new);
  return new;
end $$;

-- The default key is the intent's own id. A key of the caller's may come back for the same payload only.
create function ${schema}.guard_idempotency_key(intent ${schema}.execution_intents) returns void
  language plpgsql as $$
begin
  if intent.idempotency_key = intent.id::text then return; end if;
  perform pg_advisory_xact_lock(hashtextextended(intent.tenant || ' ' || intent.idempotency_key, 0));
  if exists (select from ${schema}.execution_intents i
             where i.tenant = intent.tenant and i.idempotency_key = intent.idempotency_key
               and i.id <> intent.id and i.digest <> intent.digest and i.compensates is null) then
    perform ${schema}.refuse('IDEMPOTENCY_KEY_REUSED', intent.id, 'the same key was recorded with another payload');
  end if;
end $$;

create function ${schema}.guard_intent() returns trigger language plpgsql as $$
begin
  if new.revision = old.revision and (new.status <> old.status or new.digest <> old.digest) then
    -- A statement that names no actor is audited all the same.
    new.revision := old.revision + 1;
    new.action := case when new.status <> old.status then 'intent.' || new.status else 'decision.edited' end;
    new.changed_by_type := 'human';
    new.changed_by := session_user;
    new.reason_code := null;
  end if;
  if new.status <> old.status then
    if not ${schema}.is_legal_move(old.status, new.status) then
      perform ${schema}.refuse('ILLEGAL_TRANSITION', old.id, old.status || ' to ' || new.status);
    end if;
    if old.status = 'awaiting_decision' and new.status = 'succeeded' and new.kind <> 'decision' then
      perform ${schema}.refuse('ILLEGAL_TRANSITION', old.id, 'only a decision ends by being approved');
    end if;
    if new.status in ('runnable', 'dispatched') and not ${schema}.is_executable(new) then
      perform ${schema}.refuse('ILLEGAL_TRANSITION', old.id, 'nothing carries out an intent of kind ' || new.kind);
    end if;
    if (new.status in ('runnable', 'dispatched') or (old.status = 'awaiting_decision' and new.status = 'succeeded'))
       and not ${schema}.is_approved(new) then
      perform ${schema}.refuse('NOT_APPROVED', old.id, 'its decisions are not complete');
    end if;
    new.ended_at := case when ${schema}.has_ended(new.status) then coalesce(old.ended_at, ${schema}.clock()) end;
  end if;
  if (new.payload is distinct from old.payload or new.digest <> old.digest) and old.status <> 'awaiting_decision' then
    perform ${schema}.refuse('PAYLOAD_FIXED', old.id, 'only a request that is open for decision can be edited');
  end if;
  if (new.payload is distinct from old.payload) <> (new.digest <> old.digest) then
    perform ${schema}.refuse('PAYLOAD_FIXED', old.id, 'a payload and its digest change together');
  end if;
  if new.idempotency_key <> old.idempotency_key and old.status not in ('awaiting_decision', 'failed') then
    perform ${schema}.refuse('PAYLOAD_FIXED', old.id, 'a key changes with an edit or a replay only');
  end if;
  if new.decision_round <> old.decision_round and old.status <> 'failed' or new.decision_round < old.decision_round then
    perform ${schema}.refuse('IDENTITY_FIXED', old.id, 'a round of decisions is for good');
  end if;
  if (new.digest, new.idempotency_key) is distinct from (old.digest, old.idempotency_key) then
    perform ${schema}.guard_idempotency_key(new);
  end if;
  if (new.id, new.tenant, new.thread_id, new.kind, new.commitment, new.version, new.workflow_key, new.backend,
      new.proposed_by, new.proposed_digest, new.approval_class, new.reversibility_class, new.sensitivity_class, new.action_class,
      new.side_effect_class, new.semantics, new.compensates, new.compensable, new.group_id, new.evidence, new.actor_type,
      new.correlation_id, new.task_id, new.created_at)
     is distinct from
     (old.id, old.tenant, old.thread_id, old.kind, old.commitment, old.version, old.workflow_key, old.backend,
      old.proposed_by, old.proposed_digest, old.approval_class, old.reversibility_class, old.sensitivity_class, old.action_class,
      old.side_effect_class, old.semantics, old.compensates, old.compensable, old.group_id, old.evidence, old.actor_type,
      old.correlation_id, old.task_id, old.created_at)
     or new.min_approvers < old.min_approvers
     or new.required_roles <> old.required_roles and new.digest = old.digest then
    perform ${schema}.refuse('IDENTITY_FIXED', old.id, 'what an intent is never changes');
  end if;
  new.updated_at := ${schema}.clock();
  return new;
end $$;

create function ${schema}.refuse_change() returns trigger language plpgsql as $$
begin
  raise exception using errcode = 'CS001', message = 'APPEND_ONLY', detail = tg_table_name || ' is append-only';
end $$;

create trigger guard_new before insert on ${schema}.execution_intents
  for each row execute function ${schema}.guard_new_intent();
create trigger guard before update on ${schema}.execution_intents
  for each row execute function ${schema}.guard_intent();
create trigger append_only before update or delete on ${schema}.decisions
  for each row execute function ${schema}.refuse_change();
create trigger append_only_truncate before truncate on ${schema}.decisions
  for each statement execute function ${schema}.refuse_change();
create trigger append_only before update or delete on ${schema}.audit_log
  for each row execute function ${schema}.refuse_change();
create trigger append_only_truncate before truncate on ${schema}.audit_log
  for each statement execute function ${schema}.refuse_change();
`;
