import type { ExecutionIntent } from "../intent.ts";
import type { Queryable } from "./client.ts";
import { type IntentRow, intentFromRow } from "./intents.ts";

/** Which open requests to list, and from where on. */
export interface InboxFilter {
  readonly tenant?: string | undefined;
  readonly threadId?: string | undefined;
  /** The name of a commitment or decision. */
  readonly commitment?: string | undefined;
  /** Only what a person with this role may decide. */
  readonly role?: string | undefined;
  /** Only what this person has not approved yet. */
  readonly principalId?: string | undefined;
  /** The last intent of the page before. */
  readonly after?: { readonly id: string } | undefined;
  readonly limit: number;
}

/** Requests that wait for people, across threads, the oldest first; pages by key, never by offset. */
export async function loadInbox(db: Queryable, filter: InboxFilter): Promise<ExecutionIntent[]> {
  const values: unknown[] = [];
  const param = (value: unknown): string => `$${values.push(value)}`;
  const clauses = ["i.status = 'awaiting_decision'", `(i.expires_at is null or i.expires_at > ${db.schema}.clock())`];
  if (filter.tenant !== undefined) clauses.push(`i.tenant = ${param(filter.tenant)}`);
  if (filter.threadId !== undefined) clauses.push(`i.thread_id = ${param(filter.threadId)}`);
  if (filter.commitment !== undefined) clauses.push(`i.commitment = ${param(filter.commitment)}`);
  if (filter.role !== undefined) {
    // A seat that no role is named for is open to everybody.
    clauses.push(`(jsonb_array_length(i.required_roles) < i.min_approvers
      or exists (select from jsonb_array_elements(i.required_roles) seat where seat ? ${param(filter.role)}))`);
  }
  if (filter.principalId !== undefined) {
    clauses.push(`not exists (select from ${db.schema}.decisions d where d.intent_id = i.id
      and d.round = i.decision_round and d.digest = i.digest and d.principal_id = ${param(filter.principalId)})`);
  }
  if (filter.after !== undefined) {
    // Its time is looked up, since a JavaScript Date has lost the microseconds.
    clauses.push(`(i.created_at, i.id) > (select created_at, id from ${db.schema}.execution_intents
      where id = ${param(filter.after.id)}::uuid)`);
  }
  const { tenant, threadId, commitment, role, principalId, after } = filter;
  const shape = [tenant, threadId, commitment, role, principalId, after].map((given) => Number(given !== undefined));
  const rows = await db.query<IntentRow>({
    name: `${db.schema}.inbox.${shape.join("")}`,
    text: `select i.* from ${db.schema}.execution_intents i where ${clauses.join(" and ")}
           order by i.created_at, i.id limit ${param(filter.limit)}`,
    values,
  });
  return rows.map(intentFromRow);
}
