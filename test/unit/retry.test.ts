import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { assertRetryPolicy, DEFAULT_RETRY, type RetryPolicy, retryDelayMs } from "../../src/retry.ts";

describe("retryDelayMs", () => {
  it("doubles from the first interval up to the longest, by default", () => {
    const longest = { ...DEFAULT_RETRY, maxAttempts: 20 };
    const almostOne = 1 - Number.EPSILON;
    expect([1, 2, 3, 8, 19].map((attempt) => retryDelayMs(longest, attempt, almostOne))).toEqual([
      500, 1_000, 2_000, 60_000, 60_000,
    ]);
  });

  it("is half certain and half jitter", () => {
    expect(retryDelayMs(DEFAULT_RETRY, 1, 0)).toBe(250);
    expect(retryDelayMs(DEFAULT_RETRY, 1, 0.5)).toBe(375);
  });

  it("says when the attempts are spent", () => {
    expect(retryDelayMs(DEFAULT_RETRY, 4, 0)).toBeTypeOf("number");
    expect(retryDelayMs(DEFAULT_RETRY, 5, 0)).toBeUndefined();
    expect(retryDelayMs({ ...DEFAULT_RETRY, maxAttempts: 1 }, 1, 0)).toBeUndefined();
  });

  it("is never negative, never longer than the longest interval, and always a whole number", () => {
    const anyPolicy = fc.record({
      maxAttempts: fc.integer({ min: 2, max: 1_000 }),
      initialIntervalMs: fc.nat({ max: 10_000 }),
      backoff: fc.double({ min: 1, max: 100, noNaN: true }),
      maxIntervalMs: fc.integer({ min: 10_000, max: 1_000_000 }),
    });
    const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
    fc.assert(
      fc.property(anyPolicy, fc.integer({ min: 1, max: 999 }), random, (policy, attempt, jitter) => {
        const delayMs = retryDelayMs(policy, attempt, jitter);
        expect(delayMs === undefined).toBe(attempt >= policy.maxAttempts);
        if (delayMs === undefined) return;
        expect(Number.isInteger(delayMs)).toBe(true);
        expect(delayMs).toBeGreaterThanOrEqual(0);
        expect(delayMs).toBeLessThanOrEqual(policy.maxIntervalMs);
      }),
      { numRuns: 1_000 },
    );
  });

  it("is no wait at all for a first interval of none, however many attempts were made", () => {
    const atOnce = { maxAttempts: 1_000, initialIntervalMs: 0, backoff: 10, maxIntervalMs: 1_000 };
    expect([1, 308, 999].map((attempt) => retryDelayMs(atOnce, attempt, 0.5))).toEqual([0, 0, 0]);
  });
});

describe("assertRetryPolicy", () => {
  it.each([
    DEFAULT_RETRY,
    { maxAttempts: 1, initialIntervalMs: 0, backoff: 1, maxIntervalMs: 0 },
    { maxAttempts: 1_000, initialIntervalMs: 0.5, backoff: 1.5, maxIntervalMs: 0.5 },
  ])("accepts %o", (policy) => {
    expect(() => assertRetryPolicy(policy, "It")).not.toThrow();
  });

  it.each<Partial<RetryPolicy>>([
    { maxAttempts: 0 },
    { maxAttempts: 1.5 },
    { maxAttempts: 1_001 },
    { maxAttempts: Number.POSITIVE_INFINITY },
    { initialIntervalMs: -1 },
    { initialIntervalMs: Number.NaN },
    { backoff: 0.5 },
    { backoff: Number.POSITIVE_INFINITY },
    { maxIntervalMs: 499 },
    { maxIntervalMs: Number.POSITIVE_INFINITY },
    { maxAttempts: "5" as unknown as number },
  ])("refuses %o", (changes) => {
    expect(() => assertRetryPolicy({ ...DEFAULT_RETRY, ...changes }, "It")).toThrow(
      expect.objectContaining({ code: "DEFINITION_INVALID" }),
    );
  });
});
