import type { AnyCommitment } from "../commitment.ts";
import type { Settlement } from "../database/claims.ts";
import { digestOf } from "../digest.ts";
import { type CountersignError, HandlerError, isCountersignError } from "../errors.ts";
import type { HandlerContext } from "../handlers.ts";
import type { ExecutionIntent, IntentFailure } from "../intent.ts";
import { type Json, toJson } from "../json.ts";
import { isPending } from "../pending.ts";
import { retryDelayMs } from "../retry.ts";
import { parseWith } from "../schema.ts";

/** One dispatch: the claimed intent, for a compensation the effect that it undoes, and what stops it. */
export interface Dispatch {
  readonly intent: ExecutionIntent;
  readonly effect: ExecutionIntent;
  readonly commitment: AnyCommitment;
  readonly maxPayloadBytes: number;
  /** Ends it, whether its handler listens or not: the lease is gone, or this process closes. */
  readonly signal: AbortSignal;
  /** Asks the handler to stop, since its intent was cancelled, and still hears it. */
  readonly cancelled?: AbortSignal;
}

/** The base of a settlement: which lease reports. */
type Held = Pick<Settlement, "id" | "leaseToken" | "from">;

/**
 * Carries out one claimed intent and says how it ended. Never throws: whatever the handler does is an
 * outcome. Approved is what runs: the digest is checked once more before the call (G3).
 */
export async function execute(dispatch: Dispatch): Promise<Settlement> {
  const { intent, effect } = dispatch;
  const held: Held = { id: intent.id, leaseToken: intent.leaseToken, from: "dispatched" };
  const found = digestOf({ commitment: effect.commitment, version: effect.version, payload: effect.payload });
  if (found !== intent.digest) {
    const error = { code: "INTENT_DIGEST_MISMATCH", message: "The payload is not the one that was approved" };
    return { ...held, status: "failed", action: "intent.failed", reasonCode: "digest_mismatch", error };
  }
  try {
    const answer = await withTimeout(dispatch, (context) => call(dispatch, context));
    return settled(held, dispatch, answer);
  } catch (error) {
    return failed(held, dispatch, error);
  }
}

async function call({ intent, effect, commitment }: Dispatch, context: HandlerContext): Promise<unknown> {
  if (intent.kind !== "compensation") return commitment.handlers.execute(effect.payload, context);
  return commitment.handlers.compensate?.(
    {
      idempotencyKey: effect.idempotencyKey,
      input: effect.payload,
      output: effect.output ?? undefined,
      externalRef: effect.externalRef ?? undefined,
      reason: (intent.payload as { readonly reason?: string }).reason ?? "",
    },
    context,
  );
}

/**
 * Runs a handler under its time-out and the signals that may end it. A handler that ignores its
 * signal is left behind: its late answer counts for nothing, the lease token has moved on. Only one that
 * is cancelled is heard until its time is over: what it did all the same must be known, to be undone (rule 17).
 */
export async function withTimeout<Answer>(
  { intent, commitment, signal, cancelled }: Pick<Dispatch, "intent" | "commitment" | "signal" | "cancelled">,
  handler: (context: HandlerContext) => Promise<Answer>,
): Promise<Answer> {
  const { timeoutMs } = commitment;
  const late = new AbortController();
  const timer = setTimeout(
    () => {
      // A timer counts to 24.8 days; a longer time-out is as good as none.
      if (timeoutMs > LONGEST_TIMER_MS) return;
      late.abort(
        new HandlerError("HANDLER_TIMEOUT", "The handler did not answer in time", {
          facts: { intentId: intent.id, commitment: commitment.workflowKey, timeoutMs },
          remedy: "Pass the signal on to what the handler calls, or raise timeoutMs.",
        }),
      );
    },
    Math.min(timeoutMs, LONGEST_TIMER_MS),
  );
  const stop = AbortSignal.any([signal, late.signal, ...(cancelled === undefined ? [] : [cancelled])]);
  const aborted = new Promise<never>((_resolve, reject) => {
    for (const each of [signal, late.signal]) {
      if (each.aborted) reject(each.reason);
      else each.addEventListener("abort", () => reject(each.reason), { once: true });
    }
  });
  aborted.catch(() => {});
  try {
    return await Promise.race([handler(contextOf(intent, stop)), aborted]);
  } finally {
    clearTimeout(timer);
  }
}

function contextOf(intent: ExecutionIntent, signal: AbortSignal): HandlerContext {
  return {
    idempotencyKey: intent.idempotencyKey,
    intentId: intent.id,
    threadId: intent.threadId,
    correlationId: intent.correlationId,
    attempt: intent.attempt,
    signal,
    traceparent: intent.traceId ?? undefined,
  };
}

function settled(held: Held, { commitment, intent, maxPayloadBytes }: Dispatch, answer: unknown): Settlement {
  if (intent.kind === "compensation") {
    return { ...held, status: "succeeded", action: "compensation.succeeded" };
  }
  if (isPending(answer)) {
    return {
      ...held,
      status: "awaiting_external",
      action: "intent.pending",
      externalRef: answer.externalRef,
      delayMs: commitment.handlers.poll === undefined ? NEVER_MS : commitment.pollIntervalMs,
      ...(answer.expiresAt === undefined ? {} : { expiresAt: answer.expiresAt }),
    };
  }
  return {
    ...held,
    status: "succeeded",
    action: "intent.succeeded",
    output: parseOutput(commitment, answer, maxPayloadBytes),
  };
}

const LONGEST_TIMER_MS = 2 ** 31 - 1;
const NEVER_MS = 100 * 365 * 24 * 3_600_000;

const UNREADABLE: ReadonlySet<string> = new Set(["OUTPUT_INVALID", "PAYLOAD_NOT_JSON", "PAYLOAD_TOO_LARGE"]);

/** The provider did the work, whatever it answered: an answer that cannot be read is not retried. */
export function parseOutput(commitment: AnyCommitment, answer: unknown, maxBytes: number): Json {
  const result = parseWith(commitment.output, answer);
  if (result.fits) return toJson(result.value ?? null, `The output of '${commitment.workflowKey}'`, maxBytes);
  throw new HandlerError("OUTPUT_INVALID", "The handler's answer does not fit the commitment's output schema", {
    facts: {
      commitment: commitment.workflowKey,
      paths: result.paths,
    },
    remedy: "Mend the schema or the handler, then replay the intent: the provider dedupes by its key.",
  });
}

/**
 * What a handler's error means. Definite: the provider or the handler said no for good. Otherwise
 * nobody knows whether the effect happened: retried under the same key where the commitment allows
 * that, `unknown` where it is at-most-once (rule 15).
 */
function failed(held: Held, { intent, commitment, cancelled }: Dispatch, error: unknown): Settlement {
  const failure = failureOf(error);
  const action = intent.kind === "compensation" ? "compensation.failed" : "intent.failed";
  if (isCountersignError(error) && error.code === "NON_RETRYABLE") {
    return { ...held, status: "failed", action, reasonCode: "non_retryable", error: failure };
  }
  if (intent.semantics === "at-most-once" && intent.kind !== "compensation") {
    return {
      ...held,
      status: "unknown",
      action: "intent.unknown",
      reasonCode: cancelled?.aborted ? "cancelled" : "ambiguous",
      error: failure,
      delayMs: 0,
    };
  }
  const unreadable = isCountersignError(error) && UNREADABLE.has(error.code);
  if (cancelled?.aborted && !unreadable) {
    return { ...held, status: "cancelled", action: "intent.cancelled", reasonCode: "cancelled", error: failure };
  }
  const delayMs = unreadable ? undefined : retryDelayMs(commitment.retry, intent.attempt, Math.random());
  if (delayMs === undefined) return { ...held, status: "failed", action, reasonCode: "attempts_spent", error: failure };
  return { ...held, status: "runnable", action: "intent.attempted", reasonCode: "retry", error: failure, delayMs };
}

/** What of an error may be kept: code and short message of ours, else class and message of the handler's own. */
export function failureOf(error: unknown): IntentFailure {
  if (isCountersignError(error)) return { code: error.code, message: (error as CountersignError).shortMessage };
  if (error instanceof Error) return { code: codeOf(error), message: clean(String(error.message)) };
  return { code: "NON_ERROR_THROWN", message: `The handler threw a ${typeof error}` };
}

function codeOf(error: Error): string {
  const { code } = error as { readonly code?: unknown };
  return clean(typeof code === "string" ? code : error.name);
}

/** Postgres takes neither NUL nor lone surrogates; and a message is a line, not a document. */
function clean(text: string): string {
  return text.toWellFormed().replaceAll("\u0000", "").slice(0, 500);
}
