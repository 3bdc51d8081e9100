import type { Json } from "../json.ts";
import type { Queryable } from "./client.ts";
import { cancelIntents } from "./decisions.ts";

/** Rows per statement, so that a backlog is worked off in bites. */
const BATCH = 500;

/**
 * Ends what has waited too long. An expired request counts as rejected by nobody (rule 12), and the
 * siblings of its `commitAll` end with it (G5). Whether it is overdue is asked once more under the lock:
 * it may have been decided while we waited for that, and then its siblings stand.
 */
export async function expireIntents(tx: Queryable): Promise<number> {
  const locked = await lockOverdue(tx);
  if (locked.length === 0) return 0;
  const expired = await tx.query<Grouped>({
    name: `${tx.schema}.expire`,
    text: `update ${tx.schema}.execution_intents set
        status = 'expired', revision = revision + 1, reason_code = 'overdue',
        action = case when status = 'awaiting_decision' then 'approval.expired' else 'intent.expired' end,
        changed_by_type = 'automated_workflow', changed_by = 'countersign'
      where id = any($1::uuid[]) and status in ('awaiting_decision', 'awaiting_external')
        and expires_at <= ${tx.schema}.clock()
      returning id, group_id`,
    values: [locked.map(({ id }) => id)],
  });
  const groups = new Set(expired.map((row) => row.group_id));
  const ids = locked.filter((row) => row.group_id !== null && groups.has(row.group_id)).map(({ id }) => id);
  const by = { by: "countersign", byType: "automated_workflow", reasonCode: "sibling_expired" };
  const cancelled = await cancelIntents(tx, { ids, ...by });
  return expired.length + cancelled.length;
}

interface Grouped {
  readonly id: string;
  readonly group_id: string | null;
}

/** Whether anything has waited too long: mostly a sweep is about something else, and needs no transaction for this. */
export async function isAnyOverdue(db: Queryable): Promise<boolean> {
  const rows = await db.query({
    name: `${db.schema}.any_overdue`,
    text: `select from ${db.schema}.execution_intents
           where status in ('awaiting_decision', 'awaiting_external') and expires_at <= ${db.schema}.clock() limit 1`,
  });
  return rows.length > 0;
}

/** Locks what looks overdue, and all siblings of it, whatever their state: none of them moves meanwhile. */
async function lockOverdue(tx: Queryable): Promise<Grouped[]> {
  return tx.query<Grouped>({
    name: `${tx.schema}.lock_overdue`,
    text: `with overdue as (
        select id, group_id from ${tx.schema}.execution_intents
        where status in ('awaiting_decision', 'awaiting_external') and expires_at <= ${tx.schema}.clock()
        order by expires_at limit ${BATCH}
      ), target as (
        -- One way in after the other: with an "or" between them the whole table would be read.
        select id from overdue
        union
        select i.id from ${tx.schema}.execution_intents i
        where i.group_id in (select group_id from overdue where group_id is not null)
      )
      select i.id, i.group_id from ${tx.schema}.execution_intents i join target using (id)
      order by i.id for no key update of i`,
  });
}

/** Ends the timers that are due. */
export async function endTimers(db: Queryable): Promise<number> {
  const rows = await db.query({
    name: `${db.schema}.end_timers`,
    text: `update ${db.schema}.execution_intents i set
        status = 'succeeded', revision = revision + 1, action = 'intent.succeeded',
        changed_by_type = 'automated_workflow', changed_by = 'countersign', reason_code = null
      from (select id from ${db.schema}.execution_intents
            where status = 'awaiting_external' and kind = 'timer' and not_before <= ${db.schema}.clock()
            order by id limit ${BATCH} for no key update skip locked) due
      where i.id = due.id returning i.id`,
  });
  return rows.length;
}

/** When the next timer or deadline is due, so that the sweep can wait exactly that long; 0 with a compensation to move on. */
export async function nextDueInMs(db: Queryable): Promise<number | undefined> {
  const [row] = await db.query<{ ms: number | null }>({
    name: `${db.schema}.next_due`,
    text: `select case when exists (select from ${db.schema}.threads where compensation_due) then 0
      else (extract(epoch from least(
        (select min(not_before) from ${db.schema}.execution_intents
         where status = 'awaiting_external' and kind = 'timer'),
        (select min(expires_at) from ${db.schema}.execution_intents
         where status in ('awaiting_decision', 'awaiting_external') and expires_at is not null)
      ) - ${db.schema}.clock()) * 1000)::float8 end as ms`,
  });
  return row?.ms ?? undefined;
}

export interface NewEvent {
  readonly threadId: string;
  readonly name: string;
  readonly eventId: string;
  readonly payload: Json;
}

/** Keeps an event. False when one with this id came before: a webhook that is delivered twice counts once. */
export async function insertEvent(tx: Queryable, event: NewEvent): Promise<boolean> {
  const rows = await tx.query({
    text: `insert into ${tx.schema}.events (thread_id, name, event_id, payload, received_at)
           values ($1, $2, $3, $4::jsonb, ${tx.schema}.clock()) on conflict do nothing returning event_id`,
    values: [event.threadId, event.name, event.eventId, JSON.stringify(event.payload)],
  });
  return rows.length > 0;
}

/**
 * Gives the oldest unanswered events of a thread to its oldest waits of the same name, one each. Like
 * whoever ends a wait it locks the waits first; then the thread, so that an event that comes while a wait
 * is being recorded meets it either here or there (migration 0009).
 */
export async function matchEvents(tx: Queryable, threadId: string): Promise<void> {
  await tx.query({
    text: `select from ${tx.schema}.execution_intents
           where thread_id = $1 and kind = 'event' and status = 'awaiting_external' order by id for no key update`,
    values: [threadId],
  });
  await tx.query({
    text: `select from ${tx.schema}.threads where thread_id = $1 for no key update`,
    values: [threadId],
  });
  await tx.query({ text: `select ${tx.schema}.match_events($1)`, values: [threadId] });
}
