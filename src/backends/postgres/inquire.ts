import type { BackendHost } from "../../backend.ts";
import { leaseInquiries } from "../../database/inquiries.ts";
import { ask, type Inquiry, inquirable } from "../inquiry.ts";

/** Inquiries per round and kind of question. */
const LIMIT = 50;

/**
 * Asks providers about effects whose end is not known; a lease keeps two processes from asking at once.
 * @returns the inquiries that were begun; each settles its intent, or gives it back.
 */
export async function inquire(
  host: BackendHost,
  backend: string,
  settle: Inquiry["settle"],
  signal: AbortSignal,
): Promise<Promise<void>[]> {
  const begun: Promise<void>[] = [];
  for (const status of ["unknown", "awaiting_external"] as const) {
    const workflowKeys = inquirable(host, status);
    if (workflowKeys.length === 0) continue;
    const { database, workerId: worker, leaseMs } = host;
    const intents = await leaseInquiries(database, { backend, worker, status, workflowKeys, limit: LIMIT, leaseMs });
    begun.push(...intents.map((intent) => ask(host, { intent, from: status, settle, signal })));
  }
  return begun;
}
