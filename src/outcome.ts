import type { ExecutionIntent, IntentFailure } from "./intent.ts";

/** The outcome carries `input` as it was executed: edited by a reviewer, maybe. */
interface OutcomeOf<Input> {
  readonly intentId: string;
  readonly input: Input;
}

/**
 * What became of a commitment: a value to look at, never an exception.
 * It reaches the graph once and never changes after that: an effect that was undone later still
 * reads `succeeded` here, so that a re-run takes the same path. Look at `cs.intent(id)` for more.
 */
export type Outcome<Input, Output> =
  | (OutcomeOf<Input> & { readonly status: "succeeded"; readonly output: Output })
  | (OutcomeOf<Input> & { readonly status: "rejected"; readonly reason: string | null })
  | (OutcomeOf<Input> & { readonly status: "failed"; readonly error: IntentFailure })
  | (OutcomeOf<Input> & { readonly status: "expired" })
  | (OutcomeOf<Input> & { readonly status: "cancelled" });

/** What people decided. After an edit `payload` is theirs. */
export type DecisionOutcome<Payload> =
  | { readonly status: "approved"; readonly intentId: string; readonly payload: Payload }
  | {
      readonly status: "rejected";
      readonly intentId: string;
      readonly payload: Payload;
      readonly reason: string | null;
    }
  | { readonly status: "expired"; readonly intentId: string; readonly payload: Payload }
  | { readonly status: "cancelled"; readonly intentId: string; readonly payload: Payload };

/** What arrived from outside, or that nothing did in time. */
export type EventOutcome<Payload> =
  | { readonly status: "received"; readonly intentId: string; readonly payload: Payload }
  | { readonly status: "expired"; readonly intentId: string }
  | { readonly status: "cancelled"; readonly intentId: string };

/** How undoing went. `compensation_failed`: at least one step failed for good; the others were tried. */
export interface CompensationOutcome {
  readonly status: "compensated" | "compensation_failed";
  readonly intentId: string;
}

/**
 * @internal The outcome of an ended intent. The payload was parsed by the commitment's schema when
 * it was recorded or edited, the output when it was settled: a schema is never applied twice.
 */
export function outcomeOf<Input, Output>(intent: ExecutionIntent): Outcome<Input, Output> {
  const common = { intentId: intent.id, input: intent.payload as Input };
  switch (intent.status) {
    case "rejected":
      return { ...common, status: "rejected", reason: intent.error?.message ?? null };
    case "failed":
      return { ...common, status: "failed", error: intent.error ?? { code: "UNKNOWN", message: "" } };
    case "expired":
      return { ...common, status: "expired" };
    case "cancelled":
      return { ...common, status: "cancelled" };
    default:
      return { ...common, status: "succeeded", output: intent.output as Output };
  }
}
