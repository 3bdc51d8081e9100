import type { ExecutionIntent } from "../intent.ts";
import type { HeldLease } from "./claims.ts";
import type { Queryable } from "./client.ts";
import { type IntentRow, intentFromRow } from "./intents.ts";

export interface LeaseInquiryInput {
  readonly backend: string;
  readonly worker: string;
  readonly status: "unknown" | "awaiting_external";
  readonly workflowKeys: readonly string[];
  readonly limit: number;
  readonly leaseMs: number;
  /** This one alone. */
  readonly id?: string;
}

/** Leases intents whose provider is to be asked: `unknown` ones to reconcile, pending ones to poll. */
export async function leaseInquiries(db: Queryable, input: LeaseInquiryInput): Promise<ExecutionIntent[]> {
  const rows = await db.query<IntentRow>({
    // The status is no parameter: a plan that is made once must know it to use the index.
    name: `${db.schema}.lease_inquiries.${input.status}.${input.id === undefined ? "any" : "one"}`,
    text: `with due as (
        select i.id from unnest($2::text[]) as served(workflow_key)
        cross join lateral (
          select id from ${db.schema}.execution_intents
          where status = '${input.status}' and kind = 'effect' and backend = $1 and workflow_key = served.workflow_key
            and not_before <= ${db.schema}.clock()
            and (lease_expires_at is null or lease_expires_at < ${db.schema}.clock())
            ${input.id === undefined ? "" : "and id = $6"}
          order by not_before, id limit $3 for no key update skip locked
        ) i limit $3
      )
      update ${db.schema}.execution_intents i set
        lease_owner = $4, lease_token = lease_token + 1,
        lease_expires_at = ${db.schema}.clock() + $5 * interval '1 millisecond'
      where i.id = any(array(select id from due)) returning i.*`,
    values: [
      input.backend,
      input.workflowKeys,
      input.limit,
      input.worker,
      input.leaseMs,
      ...(input.id === undefined ? [] : [input.id]),
    ],
  });
  return rows.map(intentFromRow);
}

/** Gives an inquiry back: asked, not answered yet. It comes up again after the delay. */
export async function releaseInquiry(
  db: Queryable,
  { id, leaseToken, delayMs }: HeldLease & { readonly delayMs: number },
): Promise<void> {
  await db.query({
    text: `update ${db.schema}.execution_intents set lease_owner = null, lease_expires_at = null,
             not_before = ${db.schema}.clock() + $3 * interval '1 millisecond'
           where id = $1 and lease_token = $2`,
    values: [id, leaseToken, delayMs],
  });
}
