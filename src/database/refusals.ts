import { BoundaryError, IntentError } from "../errors.ts";

/** What the database's own guards refused, in the SDK's words. */
export function translateRefusal(error: unknown): unknown {
  const { code, message, detail } = error as { code?: string; message?: string; detail?: string };
  if (code !== "CS001") return error;
  if (message === "IDEMPOTENCY_KEY_REUSED") {
    return new IntentError("IDEMPOTENCY_KEY_REUSED", "The idempotency key was recorded with another payload", {
      facts: { intent: detail },
      remedy: "A key stands for one payload: derive it from all that makes the effect what it is.",
      cause: error,
    });
  }
  return new BoundaryError(`The database refused the intent: ${message}`, {
    facts: { intent: detail },
    remedy: "Nothing was recorded. Report this: the SDK should not have asked.",
    cause: error,
  });
}
