import type { Queryable } from "./client.ts";

export interface NextWorkInput {
  readonly backend: string;
  /** Every kind that the worker serves: leases on them may run out. */
  readonly workflowKeys: readonly string[];
  /** Those of which another one could start now. */
  readonly startable: readonly string[];
  readonly reconcilable: readonly string[];
  readonly pollable: readonly string[];
}

/** When there is something to do next. Milliseconds from now; undefined: nothing in sight. */
export interface NextWork {
  /** An intent becomes due. */
  readonly startInMs: number | undefined;
  /** A lease runs out, or a provider is to be asked. */
  readonly attendInMs: number | undefined;
}

/** When there is something to do next, so that a worker can wait exactly that long. */
export async function nextWork(db: Queryable, input: NextWorkInput): Promise<NextWork> {
  // The kinds come as jsonb: the planner guesses the length of an array, and would plan anew for each.
  const first = (status: string, keys: string): string => `
    select open.not_before as at from jsonb_array_elements_text(${keys}::jsonb) as served(workflow_key)
    cross join lateral (
      select not_before from ${db.schema}.execution_intents
      where status = '${status}' and backend = $1 and workflow_key = served.workflow_key
        ${status === "runnable" ? "" : "and kind = 'effect' and lease_expires_at is null"}
      order by not_before limit 1
    ) open`;
  const inMs = (at: string): string => `(extract(epoch from ${at} - ${db.schema}.clock()) * 1000)::float8`;
  const [row] = await db.query<{ start_in_ms: number | null; attend_in_ms: number | null }>({
    name: `${db.schema}.next_work`,
    text: `select ${inMs("start.at")} as start_in_ms, ${inMs("attend.at")} as attend_in_ms
      from (select min(at) as at from (${first("runnable", "$3")}) runnable) start, (
        select min(next.at) as at from (
          select min(lease_expires_at) as at from ${db.schema}.execution_intents
          where status in ('dispatched', 'unknown', 'awaiting_external') and lease_expires_at is not null
            and backend = $1 and workflow_key = any($2::text[])
          union all ${first("unknown", "$4")}
          union all ${first("awaiting_external", "$5")}
        ) next
      ) attend`,
    values: [
      input.backend,
      input.workflowKeys,
      JSON.stringify(input.startable),
      JSON.stringify(input.reconcilable),
      JSON.stringify(input.pollable),
    ],
  });
  return { startInMs: row?.start_in_ms ?? undefined, attendInMs: row?.attend_in_ms ?? undefined };
}
