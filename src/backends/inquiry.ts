import { toLine } from "../arguments.ts";
import type { BackendHost } from "../backend.ts";
import type { AnyCommitment } from "../commitment.ts";
import type { Settlement } from "../database/claims.ts";
import { releaseInquiry } from "../database/inquiries.ts";
import type { ExecutionIntent } from "../intent.ts";
import { toJson } from "../json.ts";
import { retryDelayMs } from "../retry.ts";
import { type Dispatch, parseOutput, withTimeout } from "./execute.ts";

/** A retry without a pause is the handler's own wish; a provider is never asked again and again without one. */
const LEAST_PAUSE_MS = 100;

/** The states in which a provider may be asked what became of an effect. */
export type Inquirable = "unknown" | "awaiting_external";

/** An answer of the provider's, or `undefined`: not known yet, ask again later. */
type Answer = Omit<Settlement, "id" | "leaseToken" | "from"> | undefined;

/** The kinds whose provider can be asked in this state: `unknown` ones by `reconcile` (G4b), pending ones by `poll`. */
export function inquirable(host: BackendHost, from: Inquirable): string[] {
  const handler = from === "unknown" ? "reconcile" : "poll";
  return [...host.commitments.values()]
    .filter((commitment) => commitment.handlers[handler] !== undefined)
    .map((commitment) => commitment.workflowKey);
}

export interface Inquiry {
  /** Leased by this process. */
  readonly intent: ExecutionIntent;
  readonly from: Inquirable;
  readonly settle: (settlement: Settlement) => Promise<boolean>;
  readonly signal: AbortSignal;
}

/**
 * Asks the provider about one effect whose end is not known, and settles it or gives it back. An
 * inquiry has no effect of its own, so it may be repeated.
 */
export async function ask(host: BackendHost, { intent, from, settle, signal }: Inquiry): Promise<void> {
  const commitment = host.commitments.get(intent.workflowKey) as AnyCommitment;
  try {
    const question = { commitment, intent, maxPayloadBytes: host.maxPayloadBytes, signal };
    const answer = await (from === "unknown" ? reconcile(question) : poll(question));
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
type Question = Omit<Dispatch, "effect">;

async function reconcile({ commitment, intent, maxPayloadBytes, signal }: Question): Promise<Answer> {
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

async function poll({ commitment, intent, maxPayloadBytes, signal }: Question): Promise<Answer> {
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
