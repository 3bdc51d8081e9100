import type { Queryable } from "./client.ts";

/** An open intent, and the backend that owns it. */
export interface OwnedIntent {
  readonly id: string;
  readonly workflowKey: string;
  readonly backend: string;
}

/** The states of an open intent; each has a partial index, which a query of its own can use. */
const OPEN = ["awaiting_decision", "runnable", "dispatched", "unknown", "awaiting_external"] as const;

/**
 * An open intent of these kinds that belongs to none of these backends; or an effect of a thread that has not
 * ended, which would have to be undone by one that is gone.
 */
export async function findOrphan(
  db: Queryable,
  { backends, workflowKeys }: { readonly backends: readonly string[]; readonly workflowKeys: readonly string[] },
): Promise<OwnedIntent | undefined> {
  const [row] = await db.query<{ id: string; workflow_key: string; backend: string }>({
    text: OPEN.map(
      (status) => `(select id, workflow_key, backend from ${db.schema}.execution_intents
        where status = '${status}' and workflow_key = any($2::text[]) and backend <> all($1::text[]) limit 1)`,
    )
      .concat(
        `(select i.id, i.workflow_key, i.backend from ${db.schema}.threads t
          join ${db.schema}.execution_intents i on i.thread_id = t.thread_id
          where t.ended_at is null and i.status = 'succeeded' and i.compensable
            and i.workflow_key = any($2::text[]) and i.backend <> all($1::text[]) limit 1)`,
      )
      .join(" union all "),
    values: [backends, workflowKeys],
  });
  return row && { id: row.id, workflowKey: row.workflow_key, backend: row.backend };
}
