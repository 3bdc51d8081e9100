import { LONGEST_MS } from "./arguments.ts";
import { DefinitionError } from "./errors.ts";

/** How often a handler is tried, and how long to wait in between. */
export interface RetryPolicy {
  /** Dispatches in all, the first one included. Defaults to 5. */
  readonly maxAttempts: number;
  /** The wait before the second attempt. Milliseconds, defaults to 500. */
  readonly initialIntervalMs: number;
  /** Each wait is this much longer than the one before. Defaults to 2. */
  readonly backoff: number;
  /** No wait is longer. Milliseconds, defaults to 60 000. */
  readonly maxIntervalMs: number;
}

export const DEFAULT_RETRY: RetryPolicy = {
  maxAttempts: 5,
  initialIntervalMs: 500,
  backoff: 2,
  maxIntervalMs: 60_000,
};

/**
 * How long to wait before the next attempt, or `undefined` when the attempts are spent.
 * Half of the wait is jitter, so that what failed together does not return together.
 * @param attempt how many attempts were made, from 1.
 * @param random a number in [0, 1).
 */
export function retryDelayMs(policy: RetryPolicy, attempt: number, random: number): number | undefined {
  if (attempt >= policy.maxAttempts) return undefined;
  // 0 × ∞ is no number: a first interval of none stays none.
  const grown = policy.initialIntervalMs === 0 ? 0 : policy.initialIntervalMs * policy.backoff ** (attempt - 1);
  const full = Math.min(policy.maxIntervalMs, grown);
  return Math.round(full / 2 + (full / 2) * random);
}

/** @throws DefinitionError for a count, interval or factor that makes no sense. */
export function assertRetryPolicy(policy: RetryPolicy, subject: string): void {
  const { maxAttempts, initialIntervalMs, backoff, maxIntervalMs } = policy;
  const valid =
    Number.isInteger(maxAttempts) &&
    maxAttempts >= 1 &&
    maxAttempts <= 1_000 &&
    Number.isFinite(initialIntervalMs) &&
    initialIntervalMs >= 0 &&
    Number.isFinite(backoff) &&
    backoff >= 1 &&
    Number.isFinite(maxIntervalMs) &&
    maxIntervalMs <= LONGEST_MS &&
    maxIntervalMs >= initialIntervalMs;
  if (!valid) {
    throw new DefinitionError(`${subject} has a retry policy that makes no sense`, {
      facts: { maxAttempts, initialIntervalMs, backoff, maxIntervalMs },
      remedy:
        "maxAttempts is an integer of 1 to 1000, backoff at least 1, and 0 ≤ initialIntervalMs ≤ maxIntervalMs ≤ ten years.",
    });
  }
}
