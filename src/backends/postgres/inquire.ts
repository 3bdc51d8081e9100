import type { BackendHost } from "../../backend.ts";
import { leaseInquiries } from "../../database/claims.ts";
import { ask, type Inquiry, inquirable } from "../inquiry.ts";

/** Inquiries per round and kind of question. */
const LIMIT = 50;

/** A retry without a pause is the handler's own wish; a provider is never asked again and again without one. */
const LEAST_PAUSE_MS = 100;

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
<<<<<<< HEAD
=======

/** The kinds whose provider can be asked in this state. */
export function inquirable(host: BackendHost, status: "unknown" | "awaiting_external"): string[] {
  const handler = status === "unknown" ? "reconcile" : "poll";
  return [...host.commitments.values()]
    .filter((commitment) => commitment.handlers[handler] !== undefined)
    .map((commitment) => commitment.workflowKey);
}

async function askOne(
  host: BackendHost,
  intent: ExecutionIntent,
  from: "unknown" | "awaiting_external",
  settle: Settle,
  signal: AbortSignal,
): Promise<void> {
  const commitment = host.commitments.get(intent.workflowKey) as AnyCommitment;
  try {
    const inquiry = { commitment, intent, maxPayloadBytes: host.maxPayloadBytes, signal };
    const answer = await (from === "unknown" ? reconcile(inquiry) : poll(inquiry));
    if (answer !== undefined) {
      await settle({ id: intent.id, leaseToken: intent.leaseToken, from, ...answer });
      return;
    }
  } catch (error) {
    if (!signal.aborted) host.onError(error);
  }
  const patient = { ...commitment.retry, maxAttempts: Number.POSITIVE_INFINITY };
  const delayMs =
    from === "unknown" ? retryDelayMs(patient, intent.leaseToken, Math.random()) : commitment.pollIntervalMs;
  const { id, leaseToken } = intent;
  await releaseInquiry(host.database, { id, leaseToken, delayMs: Math.max(delayMs ?? 0, LEAST_PAUSE_MS) });
}

/** One question to a provider. */
type Inquiry = Omit<Dispatch, "effect">;

async function reconcile({ commitment, intent, maxPayloadBytes, signal }: Inquiry): Promise<Answer> {
  const { idempotencyKey, payload: input } = intent;
  const found = await withTimeout({ intent, commitment, signal }, async (context) =>
    commitment.handlers.reconcile?.({ idempotencyKey, input }, context),
  );
  switch (found?.status) {
    case "succeeded": {
      const done = proven(commitment, found, maxPayloadBytes);
      return { status: "succeeded", action: "intent.reconciled", reasonCode: "confirmed_done", ...done };
    }
    case "not-done":
      // A confirmed non-delivery needs a new key and a fresh approval (rule 15): never re-sent from here.
      return {
        status: "failed",
        action: "intent.reconciled",
        reasonCode: "confirmed_not_done",
        error: { code: "NOT_DONE", message: "The provider confirms that it was not done" },
      };
    default:
      return undefined;
  }
}

async function poll({ commitment, intent, maxPayloadBytes, signal }: Inquiry): Promise<Answer> {
  const { externalRef, payload: input } = intent;
  if (externalRef === null) return undefined;
  const seen = await withTimeout({ intent, commitment, signal }, async (context) =>
    commitment.handlers.poll?.({ externalRef, input }, context),
  );
  switch (seen?.status) {
    case "succeeded": {
      const done = proven(commitment, seen, maxPayloadBytes);
      return { status: "succeeded", action: "intent.succeeded", reasonCode: "polled", ...done };
    }
    case "failed":
      return {
        status: "failed",
        action: "intent.failed",
        reasonCode: "polled",
        error: { code: "PROVIDER_FAILED", message: toLine(String(seen.reason)) },
      };
    default:
      return undefined;
  }
}

/** What the provider says is kept as it is, with its proof. */
function proven(
  commitment: AnyCommitment,
  { output, receipt }: { readonly output: unknown; readonly receipt?: unknown },
  maxBytes: number,
): Pick<Settlement, "output" | "receipt"> {
  return {
    output: parseOutput(commitment, output, maxBytes),
    ...(receipt === undefined ? {} : { receipt: toJson(receipt, "The receipt", maxBytes) }),
  };
}
>>>>>>> badinput
