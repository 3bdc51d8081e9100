import type { Database } from "../database/client.ts";
import { loadInbox } from "../database/inbox.ts";
import { OptionError } from "../errors.ts";
import type { ExecutionIntent } from "../intent.ts";

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

/** A page of the inbox. @throws OptionError for a limit that makes no sense. */
export async function pendingRequests(database: Database, filter: PendingFilter): Promise<ExecutionIntent[]> {
  const { limit = 100 } = filter;
  if (!Number.isInteger(limit) || limit < 1 || limit > 500) {
    throw new OptionError("pending() got a limit that makes no sense", {
      facts: { limit: String(limit) },
      remedy: "Give a whole number from 1 to 500, and page with `after`.",
    });
  }
  return loadInbox(database, { ...filter, limit });
}
