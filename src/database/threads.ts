import type { Queryable } from "./client.ts";
import { PackedBytes } from "./packed-bytes.ts";

/** Where a thread is in its life. `ready`: to be driven; `running`: a driver holds its lease. */
export type ThreadStatus =
  | "ready"
  | "running"
  | "waiting"
  | "completed"
  | "failed"
  | "lost"
  | "cancelled"
  | "compensating"
  | "compensated"
  | "compensation_failed";

/** A row of `threads`. */
export interface ThreadRow {
  readonly thread_id: string;
  readonly tenant: string;
  readonly graph: string;
  readonly graph_version: number;
  readonly durability: "async" | "durable";
  readonly status: ThreadStatus;
  readonly correlation_id: string;
  readonly trace_id: string | null;
  readonly proposed_by: string;
  readonly input_type: string;
  readonly input: Uint8Array;
  readonly context_type: string | null;
  readonly context: Uint8Array | null;
  readonly recursion_limit: number | null;
  readonly output_type: string | null;
  readonly output: Uint8Array | null;
  readonly error: { readonly code: string; readonly message: string } | null;
  readonly persist_lag_ms: number | null;
  readonly loss_window: string | null;
  readonly wake: number;
  readonly failures: number;
  readonly lease_owner: string | null;
  readonly lease_token: number;
  readonly created_at: Date;
  readonly updated_at: Date;
  readonly ended_at: Date | null;
  /** With a claim: whether a checkpoint exists, so that the input must not be given again. */
  readonly begun?: boolean;
}

export async function loadThread(db: Queryable, threadId: string): Promise<ThreadRow | undefined> {
  const [row] = await db.query<ThreadRow>({
    name: `${db.schema}.thread`,
    text: `select * from ${db.schema}.threads where thread_id = $1`,
    values: [threadId],
  });
  return row;
}

/** How a thread stands; and once it has ended, with what. */
export type ThreadEnd = Pick<ThreadRow, "thread_id" | "status" | "output_type" | "output" | "error">;

/** How some threads stand. Their outputs are only read where they are in one of the `ended` states. */
export async function loadThreadEnds(
  db: Queryable,
  { threadIds, ended }: { readonly threadIds: readonly string[]; readonly ended: readonly ThreadStatus[] },
): Promise<ThreadEnd[]> {
  return db.query<ThreadEnd>({
    name: `${db.schema}.thread_ends`,
    text: `select thread_id, status, output_type, case when status = any($2::text[]) then output end as output, error
           from ${db.schema}.threads where thread_id = any($1::text[])`,
    values: [threadIds, ended],
  });
}

export interface ClaimThreadsInput {
  readonly driver: string;
  readonly leaseMs: number;
  /** `name@version` of the durable graphs that this process can drive. */
  readonly graphs: readonly string[];
  readonly limit: number;
  /** Only this thread, ready or not yet taken over. */
  readonly threadId?: string;
}

/**
 * Leases threads that are ready, and those whose driver's lease ran out (G6), with a new and larger
 * token, so that whatever the old driver still sends is refused (G7).
 */
export async function claimThreads(db: Queryable, input: ClaimThreadsInput): Promise<ThreadRow[]> {
  return db.query<ThreadRow>({
    name: `${db.schema}.claim_threads.${input.threadId === undefined ? "any" : "one"}`,
    text: `with due as (
        select thread_id from ${db.schema}.threads
        where (status = 'ready' and ready_at <= ${db.schema}.clock()
               or status = 'running' and durability = 'durable' and lease_expires_at < ${db.schema}.clock())
          and graph || '@' || graph_version = any($3::text[])
          ${input.threadId === undefined ? "" : "and thread_id = $5"}
        order by ready_at limit $4 for no key update skip locked
      )
      update ${db.schema}.threads t set
        status = 'running', lease_owner = $1, lease_token = lease_token + 1,
        lease_expires_at = ${db.schema}.clock() + $2 * interval '1 millisecond', updated_at = ${db.schema}.clock()
      where t.thread_id = any(array(select thread_id from due))
      returning t.*, ${db.schema}.has_begun(t.thread_id) as begun`,
    values: [
      input.driver,
      input.leaseMs,
      input.graphs,
      input.limit,
      ...(input.threadId === undefined ? [] : [input.threadId]),
    ],
  });
}

/** Leases a thread that nobody drives, whatever it waits for or ended as: to fork it in the same transaction. */
export async function leaseIdleThread(
  tx: Queryable,
  { threadId, driver, leaseMs }: { readonly threadId: string; readonly driver: string; readonly leaseMs: number },
): Promise<ThreadRow | undefined> {
  const [row] = await tx.query<ThreadRow>({
    text: `update ${tx.schema}.threads set
        status = 'running', lease_owner = $2, lease_token = lease_token + 1, ended_at = null, error = null,
        output_type = null, output = null,
        lease_expires_at = ${tx.schema}.clock() + $3 * interval '1 millisecond', updated_at = ${tx.schema}.clock()
      where thread_id = $1 and (status <> 'running' or lease_expires_at < ${tx.schema}.clock())
      returning *`,
    values: [threadId, driver, leaseMs],
  });
  return row;
}

/**
 * Ends a thread on somebody's word. A running driver loses its lease with this, so that nothing more
 * is recorded; intents that wait are ended by the caller in the same transaction.
 */
export async function cancelThread(tx: Queryable, threadId: string, by: string): Promise<boolean> {
  const rows = await tx.query({
    text: `update ${tx.schema}.threads set status = 'cancelled', lease_token = lease_token + 1, lease_expires_at = null,
        changed_by_type = 'human', changed_by = $2, ended_at = ${tx.schema}.clock(), updated_at = ${tx.schema}.clock()
      where thread_id = $1 and status in ('ready', 'running', 'waiting', 'failed', 'lost') returning thread_id`,
    values: [threadId, by],
  });
  return rows.length > 0;
}

/** A lease on a thread, as its driver holds it. */
export interface ThreadLease {
  readonly threadId: string;
  readonly leaseToken: number;
}

/** Extends the leases that are still ours; returns the ids of those. */
export async function renewThreadLeases(
  db: Queryable,
  { leases, leaseMs }: { readonly leases: readonly ThreadLease[]; readonly leaseMs: number },
): Promise<Set<string>> {
  const rows = await db.query<{ thread_id: string }>({
    name: `${db.schema}.renew_threads`,
    text: `with held as (
        select t.thread_id from ${db.schema}.threads t join unnest($1::text[], $2::int[]) as held(thread_id, token) using (thread_id)
        where t.lease_token = held.token and t.status = 'running'
        order by t.thread_id for no key update of t
      )
      update ${db.schema}.threads t set lease_expires_at = ${db.schema}.clock() + $3 * interval '1 millisecond'
      from held where t.thread_id = held.thread_id returning t.thread_id`,
    values: [leases.map((lease) => lease.threadId), leases.map((lease) => lease.leaseToken), leaseMs],
  });
  return new Set(rows.map((row) => row.thread_id));
}

/** How a driver lets go of a thread. */
export interface Release extends ThreadLease {
  readonly status: "waiting" | "completed" | "failed" | "lost" | "ready";
  /** The `wake` that the driver saw before its last pass; a larger one means: there is news. */
  readonly wake: number;
  readonly output?: readonly [type: string, bytes: Uint8Array];
  /** `reasonCode` is what the audit trail gets: a code of ours or LangGraph's, never the graph's own words. */
  readonly error?: { readonly code: string; readonly reasonCode: string; readonly message: string };
  readonly persistLagMs?: number;
  readonly delayMs?: number;
}

/**
 * Ends drives under their leases, many at once. A thread that was to wait while news came in is `ready`
 * at once; one that completed while a compensation is open is `compensating`.
 * @returns the status that each thread has now, in their order; `undefined` where the lease was lost.
 */
export async function releaseThreads(
  db: Queryable,
  releases: readonly Release[],
): Promise<(ThreadStatus | undefined)[]> {
  const outputs = new PackedBytes();
  const items = releases.map((release, item) => ({
    item,
    thread_id: release.threadId,
    token: release.leaseToken,
    status: release.status,
    wake: release.wake,
    error: release.error,
    persist_lag_ms: release.persistLagMs,
    delay_ms: release.delayMs,
    ...(release.output === undefined ? {} : { output_type: release.output[0], ...outputs.add(release.output[1]) }),
  }));
  const rows = await db.query<{ item: number; status: ThreadStatus }>({
    name: `${db.schema}.release_threads`,
    text: `with release as materialized (
        select * from jsonb_to_recordset($1::jsonb) as r(item int, thread_id text, token int, status text, wake int,
          error jsonb, persist_lag_ms int, delay_ms float8, output_type text, at int, len int)
      ), held as materialized (
        select r.* from ${db.schema}.threads t join release r using (thread_id)
        where t.thread_id = any(array(select thread_id from release)) and t.lease_token = r.token and t.status = 'running'
        order by thread_id for no key update of t
      )
      update ${db.schema}.threads t set
        status = case
          when r.status = 'waiting' and t.wake > r.wake then 'ready'
          when r.status = 'completed' then ${db.schema}.end_status(t.thread_id)
          else r.status end,
        output_type = coalesce(r.output_type, t.output_type),
        output = coalesce(substring($2::bytea from r.at for r.len), t.output), error = r.error,
        persist_lag_ms = greatest(t.persist_lag_ms, r.persist_lag_ms),
        failures = case when r.status = 'ready' then t.failures + 1 else 0 end,
        ready_at = ${db.schema}.clock() + coalesce(r.delay_ms, 0) * interval '1 millisecond',
        lease_expires_at = null, changed_by_type = 'automated_workflow', changed_by = null,
        updated_at = ${db.schema}.clock(),
        ended_at = case when r.status in ('completed', 'lost') then ${db.schema}.clock() end
      from held r where t.thread_id = r.thread_id
      returning r.item, t.status`,
    values: [JSON.stringify(items), outputs.pack()],
  });
  const statuses = new Map(rows.map((row) => [row.item, row.status]));
  return releases.map((_release, item) => statuses.get(item));
}

/** Async threads whose driver died: what it had not persisted is gone, so they are `lost`, and audited. */
export async function markLostThreads(db: Queryable): Promise<number> {
  const rows = await db.query({
    text: `update ${db.schema}.threads set status = 'lost', lease_expires_at = null, lease_token = lease_token + 1,
        error = jsonb_build_object('code', 'DRIVER_LOST', 'reasonCode', 'DRIVER_LOST', 'message', 'The process died with steps that were not persisted yet'),
        ended_at = ${db.schema}.clock(), updated_at = ${db.schema}.clock()
      where status = 'running' and durability = 'async' and lease_expires_at < ${db.schema}.clock()
      returning thread_id`,
  });
  return rows.length;
}

/** Makes a failed or lost thread ready again. False when it is neither. */
export async function retryThread(db: Queryable, threadId: string): Promise<boolean> {
  const rows = await db.query({
    text: `update ${db.schema}.threads set status = 'ready', error = null, failures = 0, ended_at = null,
        ready_at = ${db.schema}.clock(), updated_at = ${db.schema}.clock()
      where thread_id = $1 and status in ('failed', 'lost') returning thread_id`,
    values: [threadId],
  });
  return rows.length > 0;
}
