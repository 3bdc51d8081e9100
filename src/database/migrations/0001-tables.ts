/**
 * The tables. Columns follow the ExecutionIntent record and the audit row of `policy.md`.
 * `clock()` is the one source of time: tests move it by replacing the function.
 */
export const tables = (schema: string): string => `
create function ${schema}.clock() returns timestamptz
  language sql stable as $$ select now() $$;

create table ${schema}.threads (
  thread_id         text primary key,
  tenant            text not null default 'default',
  graph             text not null,
  graph_version     integer not null,
  durability        text not null check (durability in ('async', 'durable')),
  status            text not null check (status in ('ready', 'running', 'waiting', 'completed',
                      'failed', 'lost', 'cancelled', 'compensating', 'compensated', 'compensation_failed')),
  correlation_id    text not null check (correlation_id <> ''),
  trace_id          text,
  proposed_by       text not null,
  input_type        text not null,
  input             bytea not null,
  context_type      text,
  context           bytea,
  recursion_limit   integer,
  output_type       text,
  output            bytea,
  error             jsonb,
  on_reject         text check (on_reject = 'compensate'),
  on_failure        text check (on_failure = 'compensate'),
  compensation_due  boolean not null default false,
  loss_window       text,
  persist_lag_ms    integer,
  -- Raised by whatever the thread waits for; a driver that saw a smaller value drives once more.
  wake              integer not null default 0,
  failures          integer not null default 0,
  ready_at          timestamptz not null,
  lease_owner       text,
  lease_token       integer not null default 0,
  lease_expires_at  timestamptz,
  -- Who made the last change on purpose; null where the driver of the lease did.
  changed_by_type   text not null default 'automated_workflow',
  changed_by        text,
  created_at        timestamptz not null,
  updated_at        timestamptz not null,
  ended_at          timestamptz
);
create index threads_ready on ${schema}.threads (ready_at) where status = 'ready';
create index threads_running on ${schema}.threads (lease_expires_at) where status = 'running';
create index threads_compensation_due on ${schema}.threads (thread_id) where compensation_due;

create table ${schema}.execution_intents (
  id                  uuid primary key,
  tenant              text not null,
  thread_id           text not null references ${schema}.threads,
  kind                text not null check (kind in ('effect', 'decision', 'event', 'timer', 'compensation')),
  commitment          text not null,
  version             integer not null,
  workflow_key        text not null,
  idempotency_key     text not null check (idempotency_key <> ''),
  correlation_id      text not null check (correlation_id <> ''),
  causation_id        text,
  trace_id            text,
  span_id             text,
  side_effect_class   text not null check (side_effect_class in ('none', 'internal_write', 'external_message', 'external_commitment')),
  approval_class      text not null check (approval_class in ('A0', 'A1', 'A2', 'A3')),
  reversibility_class text not null check (reversibility_class in ('R0', 'R1', 'R2', 'R3')),
  sensitivity_class   text not null check (sensitivity_class in ('S0', 'S1', 'S2', 'S3')),
  action_class        text not null check (action_class in ('auto', 'gated')),
  proposed_by         text not null,
  actor_type          text not null,
  committed_by        text,
  payload             jsonb not null,
  payload_summary     text not null,
  digest              text not null,
  proposed_digest     text not null,
  edit_schema         jsonb,
  evidence            jsonb,
  -- Only decisions of the current round count; a replay of an at-most-once effect starts a new one.
  decision_round      integer not null default 1,
  min_approvers       integer not null check (min_approvers >= 0),
  required_roles      jsonb not null,
  status              text not null,
  semantics           text not null check (semantics in ('at-least-once', 'at-most-once')),
  backend             text,
  waits               boolean not null,
  group_id            uuid,
  compensable         boolean not null,
  compensates         uuid references ${schema}.execution_intents,
  not_before          timestamptz not null,
  expires_at          timestamptz,
  attempt             integer not null default 0,
  lease_owner         text,
  lease_token         integer not null default 0,
  lease_expires_at    timestamptz,
  cancel_requested    boolean not null default false,
  external_ref        text,
  output              jsonb,
  error               jsonb,
  receipt             jsonb,
  checkpoint_ns       text not null,
  checkpoint_id       text not null,
  task_id             text not null,
  schema_version      integer not null default 1,
  -- The last change, copied into the audit trail by the database itself (migration 0003).
  revision            integer not null default 1,
  action              text not null,
  changed_by_type     text not null,
  changed_by          text not null,
  reason_code         text,
  created_at          timestamptz not null,
  updated_at          timestamptz not null,
  ended_at            timestamptz,
  -- Rules 1, 2 and 10: these never run without a person, whatever else the row says.
  constraint person_required check (
    kind <> 'effect' or min_approvers >= 1
    or (reversibility_class in ('R0', 'R1') and action_class = 'auto' and approval_class = 'A0')),
  constraint two_people_required check (
    kind <> 'effect' or approval_class not in ('A2', 'A3') or min_approvers >= 2)
);
-- Each is partial, so that claim, inbox and sweep stay flat while history grows.
create index intents_runnable on ${schema}.execution_intents (backend, workflow_key, not_before, id)
  where status = 'runnable';
create index intents_leased on ${schema}.execution_intents (lease_expires_at)
  where status in ('dispatched', 'unknown');
create index intents_inbox on ${schema}.execution_intents (created_at, id)
  where status = 'awaiting_decision';
create index intents_expiring on ${schema}.execution_intents (expires_at)
  where status in ('awaiting_decision', 'awaiting_external') and expires_at is not null;
create index intents_due on ${schema}.execution_intents (not_before)
  where status = 'awaiting_external';
create index intents_external_ref on ${schema}.execution_intents (external_ref)
  where external_ref is not null;
create index intents_thread on ${schema}.execution_intents (thread_id, created_at, id);
create index intents_idempotency_key on ${schema}.execution_intents (tenant, idempotency_key);
create index intents_group on ${schema}.execution_intents (group_id) where group_id is not null;
-- An effect is undone at most once.
create unique index intents_compensates on ${schema}.execution_intents (compensates);
create index intents_compensation on ${schema}.execution_intents (thread_id)
  where kind = 'compensation' and compensates is null and status = 'awaiting_external';

create table ${schema}.decisions (
  id               bigint generated always as identity primary key,
  intent_id        uuid not null references ${schema}.execution_intents,
  round            integer not null,
  verdict          text not null check (verdict in ('approve', 'edit', 'reject')),
  principal_id     text not null check (principal_id <> ''),
  principal_roles  text[] not null,
  digest           text not null,
  previous_digest  text,
  -- Free text, under the intent's sensitivity: never copied into the audit trail.
  reason           text,
  at               timestamptz not null
);
create index decisions_intent on ${schema}.decisions (intent_id, id);
-- Each person counts once for what they approved; who approved may still change their mind.
create unique index decisions_one_approval on ${schema}.decisions (intent_id, round, digest, principal_id)
  where verdict in ('approve', 'edit');

create table ${schema}.events (
  thread_id    text not null references ${schema}.threads,
  name         text not null,
  event_id     text not null,
  payload      jsonb not null,
  received_at  timestamptz not null,
  consumed_by  uuid references ${schema}.execution_intents,
  primary key (thread_id, name, event_id)
);

create table ${schema}.audit_chains (
  thread_id  text primary key,
  seq        integer not null,
  hash       bytea not null
) with (fillfactor = 50);

create table ${schema}.audit_log (
  thread_id       text not null,
  seq             integer not null,
  tenant          text not null,
  at              timestamptz not null,
  action          text not null,
  actor_type      text not null,
  actor_id        text not null,
  intent_id       uuid,
  commitment      text,
  classes         text,
  digest          text,
  outcome         text,
  reason_code     text,
  correlation_id  text not null,
  trace_id        text,
  attempt         integer,
  hash            bytea not null,
  primary key (thread_id, seq)
);
`;
