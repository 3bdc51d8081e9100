import type { Queryable } from "./client.ts";
import type { ThreadRow } from "./threads.ts";

export interface NewThread {
  readonly threadId: string;
  readonly tenant: string;
  readonly graph: string;
  readonly graphVersion: number;
  readonly durability: "async" | "durable";
  readonly correlationId: string;
  readonly traceId: string | null;
  readonly proposedBy: string;
  readonly input: readonly [type: string, bytes: Uint8Array];
  readonly context: readonly [type: string, bytes: Uint8Array] | null;
  readonly recursionLimit: number | null;
  readonly onReject: "compensate" | null;
  readonly onFailure: "compensate" | null;
  readonly lossWindow: string | null;
  /** The driver that starts it at once, or null to leave it to whoever comes first. */
  readonly lease: { readonly owner: string; readonly leaseMs: number } | null;
}

/**
 * Records new threads with their input, leased if asked, in one statement and one commit. In their
 * order, `undefined` for each whose id is taken, be it by another one of them.
 */
export async function insertThreads(
  db: Queryable,
  threads: readonly NewThread[],
): Promise<readonly (ThreadRow | undefined)[]> {
  const rows = await db.query<ThreadRow>({
    name: `${db.schema}.insert_threads`,
    // In one order everywhere, so that two processes that start the same threads never deadlock.
    text: `insert into ${db.schema}.threads (
        thread_id, tenant, graph, graph_version, durability, correlation_id, trace_id, proposed_by,
        input_type, input, context_type, context, recursion_limit, on_reject, on_failure, loss_window,
        status, lease_owner, lease_token, lease_expires_at, ready_at, created_at, updated_at)
      select t.thread_id, tenant, graph, graph_version, durability, correlation_id, trace_id, proposed_by,
        input_type, input, context_type, context, recursion_limit, on_reject, on_failure, loss_window,
        case when lease_owner is null then 'ready' else 'running' end, lease_owner,
        case when lease_owner is null then 0 else 1 end, now.at + lease_ms * interval '1 millisecond',
        now.at, now.at, now.at
      from (select ${db.schema}.clock() as at) now, unnest(
        $1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::text[], $10::bytea[], $11::text[], $12::bytea[], $13::int[], $14::text[], $15::text[], $16::text[],
        $17::text[], $18::float8[]
      ) with ordinality as t(
        thread_id, tenant, graph, graph_version, durability, correlation_id, trace_id, proposed_by,
        input_type, input, context_type, context, recursion_limit, on_reject, on_failure, loss_window,
        lease_owner, lease_ms, place)
      order by t.thread_id, place
      on conflict (thread_id) do nothing returning *`,
    values: columnsOf(threads),
  });
  const inserted = new Map(rows.map((row) => [row.thread_id, row]));
  return threads.map(({ threadId }) => {
    const row = inserted.get(threadId);
    inserted.delete(threadId);
    return row;
  });
}

function columnsOf(threads: readonly NewThread[]): unknown[][] {
  return [
    threads.map((thread) => thread.threadId),
    threads.map((thread) => thread.tenant),
    threads.map((thread) => thread.graph),
    threads.map((thread) => thread.graphVersion),
    threads.map((thread) => thread.durability),
    threads.map((thread) => thread.correlationId),
    threads.map((thread) => thread.traceId),
    threads.map((thread) => thread.proposedBy),
    threads.map((thread) => thread.input[0]),
    threads.map((thread) => thread.input[1]),
    threads.map((thread) => thread.context?.[0] ?? null),
    threads.map((thread) => thread.context?.[1] ?? null),
    threads.map((thread) => thread.recursionLimit),
    threads.map((thread) => thread.onReject),
    threads.map((thread) => thread.onFailure),
    threads.map((thread) => thread.lossWindow),
    threads.map((thread) => thread.lease?.owner ?? null),
    threads.map((thread) => thread.lease?.leaseMs ?? null),
  ];
}
