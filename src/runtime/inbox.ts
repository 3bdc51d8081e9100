import { z } from "zod";
import { checker, text } from "../arguments.ts";
import type { Database } from "../database/client.ts";
import { loadInbox } from "../database/inbox.ts";
import { type ExecutionIntent, isIntentId } from "../intent.ts";

/** Which requests `pending()` lists. All given conditions must hold. */
export interface PendingFilter {
  readonly tenant?: string;
  readonly threadId?: string;
  /** The name of a commitment or decision. */
  readonly commitment?: string;
  /** Only what a person with this role may decide. */
  readonly role?: string;
  /** Only what this person has not approved yet. */
  readonly principalId?: string;
  /** The last intent of the page before. */
  readonly after?: Pick<ExecutionIntent, "id">;
  /** At most 500. Defaults to 100. */
  readonly limit?: number;
}

const check = checker("pending()", {
  filter: z.strictObject({
    tenant: text.optional(),
    threadId: text.optional(),
    commitment: text.optional(),
    role: text.optional(),
    principalId: text.optional(),
    after: z.looseObject({ id: z.custom(isIntentId, "Pass the last intent of the page before") }).optional(),
    limit: z.int().min(1).max(500).optional(),
  }),
});

/** A page of the inbox. @throws OptionError for a filter that makes no sense. */
export async function pendingRequests(database: Database, filter: PendingFilter): Promise<ExecutionIntent[]> {
  check({ filter });
  const { limit = 100 } = filter;
  return loadInbox(database, { ...filter, limit });
}
