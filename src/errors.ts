const BRAND = Symbol.for("countersign.error");

/** Every stable error code that the SDK throws. Codes never change their meaning; messages may. */
export type ErrorCode =
  | "BOUNDARY"
  | "DEFINITION_INVALID"
  | "OPTION_INVALID"
  | "INPUT_INVALID"
  | "PAYLOAD_NOT_JSON"
  | "PAYLOAD_TOO_LARGE"
  | "NON_DETERMINISM"
  | "WAIT_SWALLOWED"
  | "LEASE_LOST"
  | "THREAD_EXISTS"
  | "THREAD_NOT_FOUND"
  | "THREAD_STATE"
  | "THREAD_FAILED"
  | "INTENT_NOT_FOUND"
  | "INTENT_ENDED"
  | "INTENT_STATE"
  | "INTENT_DIGEST_MISMATCH"
  | "ALREADY_DECIDED"
  | "DECISION_NOT_ALLOWED"
  | "DECISION_EXPIRED"
  | "EDIT_INVALID"
  | "IDEMPOTENCY_KEY_REUSED"
  | "OUTPUT_INVALID"
  | "HANDLER_TIMEOUT"
  | "NON_RETRYABLE"
  | "DATABASE_UNAVAILABLE"
  | "DATABASE_LOCKED"
  | "SCHEMA_TOO_NEW"
  | "DURABILITY_NOT_HONOURED"
  | "CLOSED";

/** What an error says about the things involved: ids, names, digests and counts; never a payload. */
export type ErrorFacts = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** @internal */
export interface ErrorInit {
  readonly facts?: ErrorFacts;
  readonly remedy: string;
  readonly cause?: unknown;
}

/**
 * The base class of every error that Countersign throws on purpose.
 * Match on `code`, which is stable; `message` is for people.
 */
export class CountersignError extends Error {
  readonly code: ErrorCode;
  readonly shortMessage: string;
  readonly facts: ErrorFacts;
  readonly remedy: string;

  constructor(code: ErrorCode, shortMessage: string, init: ErrorInit) {
    super(render(shortMessage, init), init.cause === undefined ? undefined : { cause: init.cause });
    this.name = new.target.name;
    this.code = code;
    this.shortMessage = shortMessage;
    this.facts = init.facts ?? {};
    this.remedy = init.remedy;
    Object.defineProperty(this, BRAND, { value: true });
  }
}

/** True for any {@link CountersignError}, also one from another copy of the package. */
export function isCountersignError(error: unknown): error is CountersignError {
  return typeof error === "object" && error !== null && BRAND in error;
}

function render(shortMessage: string, { facts = {}, remedy }: ErrorInit): string {
  const seen = Object.entries(facts)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}: ${String(value)}`)
    .join(", ");
  return `${shortMessage}${seen ? ` (${seen})` : ""}. ${remedy}`;
}

/** Graph code reached for something that only the durable backend may do, or a graph that may not commit tried to. */
export class BoundaryError extends CountersignError {
  constructor(shortMessage: string, init: ErrorInit) {
    super("BOUNDARY", shortMessage, init);
  }
}

/** A commitment or a graph is declared in a way that cannot be run safely. */
export class DefinitionError extends CountersignError {
  constructor(shortMessage: string, init: ErrorInit) {
    super("DEFINITION_INVALID", shortMessage, init);
  }
}

/** An option or argument of a public function has a wrong type or an absurd value. */
export class OptionError extends CountersignError {
  constructor(shortMessage: string, init: ErrorInit) {
    super("OPTION_INVALID", shortMessage, init);
  }
}

/** What was handed over does not fit its schema, is not plain JSON, or is too large. */
export class InputError extends CountersignError {
  constructor(
    shortMessage: string,
    init: ErrorInit & { readonly code?: "INPUT_INVALID" | "PAYLOAD_NOT_JSON" | "PAYLOAD_TOO_LARGE" },
  ) {
    super(init.code ?? "INPUT_INVALID", shortMessage, init);
  }
}

/** A re-run of a node met a recorded intent of another kind, commitment or version under the same id. */
export class NonDeterminismError extends CountersignError {
  constructor(facts: ErrorFacts) {
    super("NON_DETERMINISM", "A re-run of this node reached another wait than the one that was recorded", {
      facts,
      remedy:
        "Calls before a wait must happen in the same order on each run: wrap model calls in LangGraph's task(), give racing calls a { key }, and give a changed graph a new version.",
    });
  }
}

/** A node caught the control-flow throw of a wait and went on, so the wait was never recorded. */
export class WaitSwallowedError extends CountersignError {
  constructor(facts: ErrorFacts) {
    super("WAIT_SWALLOWED", "A try/catch in this node swallowed a wait, so nothing was recorded", {
      facts,
      remedy:
        "Take commit(), requestDecision(), waitForEvent() and sleep() out of try/catch, or rethrow what isWait(error) recognises. Business outcomes are values, not exceptions.",
    });
  }
}

/** This process no longer holds the lease on the thread or intent; another one took it over. Nothing was written. */
export class LeaseLostError extends CountersignError {
  constructor(facts: ErrorFacts) {
    super("LEASE_LOST", "The lease was lost, nothing was written", {
      facts,
      remedy: "Nothing to do: the holder of the newer lease carries the work on.",
    });
  }
}

/** A thread is unknown, exists already, or is in a state in which the call makes no sense. */
export class ThreadError extends CountersignError {
  constructor(
    code: "THREAD_EXISTS" | "THREAD_NOT_FOUND" | "THREAD_STATE" | "THREAD_FAILED",
    shortMessage: string,
    init: ErrorInit,
  ) {
    super(code, shortMessage, init);
  }
}

/** An intent is unknown, has ended, or is in a state in which the call makes no sense. */
export class IntentError extends CountersignError {
  constructor(
    code: "INTENT_NOT_FOUND" | "INTENT_ENDED" | "INTENT_STATE" | "IDEMPOTENCY_KEY_REUSED",
    shortMessage: string,
    init: ErrorInit,
  ) {
    super(code, shortMessage, init);
  }
}

/** A decision was refused; nothing changed. */
export class DecisionError extends CountersignError {
  constructor(
    code: "INTENT_DIGEST_MISMATCH" | "ALREADY_DECIDED" | "DECISION_NOT_ALLOWED" | "DECISION_EXPIRED" | "EDIT_INVALID",
    shortMessage: string,
    init: ErrorInit,
  ) {
    super(code, shortMessage, init);
  }
}

/** Thrown by a handler to say: this failed for good, a retry cannot help. The intent ends `failed`. */
export class NonRetryableError extends CountersignError {
  constructor(shortMessage: string, init: Partial<ErrorInit> = {}) {
    super("NON_RETRYABLE", shortMessage, {
      remedy: "Correct the cause, then replay the intent or propose a new one.",
      ...init,
    });
  }
}

/** What a handler did, as seen by the backend: it ran too long, or answered what its output schema refuses. */
export class HandlerError extends CountersignError {
  constructor(code: "OUTPUT_INVALID" | "HANDLER_TIMEOUT", shortMessage: string, init: ErrorInit) {
    super(code, shortMessage, init);
  }
}

/** The database cannot be used as asked: away, read-only, locked by another process, or migrated by newer code. */
export class DatabaseError extends CountersignError {
  constructor(
    code: "DATABASE_UNAVAILABLE" | "DATABASE_LOCKED" | "SCHEMA_TOO_NEW" | "DURABILITY_NOT_HONOURED" | "CLOSED",
    shortMessage: string,
    init: ErrorInit,
  ) {
    super(code, shortMessage, init);
  }
}
