/**
 * Indexes that keep every hot statement flat while history grows, and none that a row carries for nothing.
 *
 * What waits for something outside can be many rows too: timers and open questions each get an index in
 * the order in which they fall due. Most intents undo nothing, and need no entry that says so.
 */
export const flatPlans = (schema: string): string => `
drop index ${schema}.intents_due;
create index intents_timers on ${schema}.execution_intents (not_before)
  where status = 'awaiting_external' and kind = 'timer';
create index intents_questions on ${schema}.execution_intents (status, backend, workflow_key, not_before, id)
  where status in ('unknown', 'awaiting_external') and kind = 'effect';
drop index ${schema}.intents_leased;
create index intents_leased on ${schema}.execution_intents (lease_expires_at)
  where status in ('dispatched', 'unknown', 'awaiting_external') and lease_expires_at is not null;
drop index ${schema}.intents_compensates;
create unique index intents_compensates on ${schema}.execution_intents (compensates) where compensates is not null;
`;
