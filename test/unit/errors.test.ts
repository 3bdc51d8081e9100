import { describe, expect, it } from "vitest";
import {
  BoundaryError,
  CountersignError,
  DatabaseError,
  DecisionError,
  DefinitionError,
  type ErrorCode,
  HandlerError,
  InputError,
  IntentError,
  isCountersignError,
  LeaseLostError,
  NonDeterminismError,
  NonRetryableError,
  OptionError,
  ThreadError,
  WaitSwallowedError,
} from "../../src/errors.ts";
import * as surface from "../../src/index.ts";

const ids = { intentId: "i-1", threadId: "t-1" };

/** One error of every class, with every code that the class may have. */
const EXAMPLES: Readonly<Record<ErrorCode, CountersignError>> = {
  BOUNDARY: new BoundaryError("A graph reached over the border", { facts: { graph: "g" }, remedy: "Call commit()." }),
  DEFINITION_INVALID: new DefinitionError("Commitment 'x' has no version", { remedy: "Give it one." }),
  OPTION_INVALID: new OptionError("It got a limit that makes no sense", { remedy: "Give another." }),
  INPUT_INVALID: new InputError("The input does not fit", { remedy: "Pass another." }),
  PAYLOAD_NOT_JSON: new InputError("The input is not JSON", { code: "PAYLOAD_NOT_JSON", remedy: "Pass JSON." }),
  PAYLOAD_TOO_LARGE: new InputError("The input is too large", {
    code: "PAYLOAD_TOO_LARGE",
    facts: { sizeBytes: 9, maxPayloadBytes: 8 },
    remedy: "Pass less.",
  }),
  NON_DETERMINISM: new NonDeterminismError({ ...ids, recorded: "effect a@1", proposed: "effect b@1" }),
  WAIT_SWALLOWED: new WaitSwallowedError(ids),
  LEASE_LOST: new LeaseLostError({ threadId: "t-1", leaseToken: 7 }),
  THREAD_EXISTS: new ThreadError("THREAD_EXISTS", "It exists", { facts: ids, remedy: "Take another id." }),
  THREAD_NOT_FOUND: new ThreadError("THREAD_NOT_FOUND", "It does not exist", { facts: ids, remedy: "Start it." }),
  THREAD_STATE: new ThreadError("THREAD_STATE", "It runs", { facts: ids, remedy: "Nothing changed." }),
  THREAD_FAILED: new ThreadError("THREAD_FAILED", "It failed", { facts: ids, remedy: "Retry it." }),
  INTENT_NOT_FOUND: new IntentError("INTENT_NOT_FOUND", "There is none", { facts: ids, remedy: "Look again." }),
  INTENT_ENDED: new IntentError("INTENT_ENDED", "It has ended", { facts: ids, remedy: "Nothing changed." }),
  INTENT_STATE: new IntentError("INTENT_STATE", "It does not wait", { facts: ids, remedy: "Nothing changed." }),
  IDEMPOTENCY_KEY_REUSED: new IntentError("IDEMPOTENCY_KEY_REUSED", "Reused", { remedy: "Take another key." }),
  INTENT_DIGEST_MISMATCH: new DecisionError("INTENT_DIGEST_MISMATCH", "Another payload", { remedy: "Look again." }),
  ALREADY_DECIDED: new DecisionError("ALREADY_DECIDED", "Decided", {
    facts: { by: "mia" },
    remedy: "Nothing changed.",
  }),
  DECISION_NOT_ALLOWED: new DecisionError("DECISION_NOT_ALLOWED", "Not you", { remedy: "Ask another." }),
  DECISION_EXPIRED: new DecisionError("DECISION_EXPIRED", "Too late", { remedy: "Propose it again." }),
  EDIT_INVALID: new DecisionError("EDIT_INVALID", "It does not fit", { remedy: "Correct it." }),
  OUTPUT_INVALID: new HandlerError("OUTPUT_INVALID", "The answer does not fit", { remedy: "Mend it." }),
  HANDLER_TIMEOUT: new HandlerError("HANDLER_TIMEOUT", "Too slow", { facts: { timeoutMs: 5 }, remedy: "Be quick." }),
  NON_RETRYABLE: new NonRetryableError("The provider refused"),
  DATABASE_UNAVAILABLE: new DatabaseError("DATABASE_UNAVAILABLE", "Away", { remedy: "Try again." }),
  DATABASE_LOCKED: new DatabaseError("DATABASE_LOCKED", "Locked", { facts: { owner: "pid 1" }, remedy: "Wait." }),
  SCHEMA_TOO_NEW: new DatabaseError("SCHEMA_TOO_NEW", "Too new", { remedy: "Upgrade." }),
  DURABILITY_NOT_HONOURED: new DatabaseError("DURABILITY_NOT_HONOURED", "It does not wait", { remedy: "Upgrade." }),
  CLOSED: new DatabaseError("CLOSED", "Closed", { remedy: "Open it again." }),
};

it("exports these names and no others", () => {
  expect(Object.keys(surface).sort()).toMatchInlineSnapshot(`
    [
      "CountersignError",
      "NonRetryableError",
      "commit",
      "commitAll",
      "compensate",
      "countersign",
      "defineCommitment",
      "defineGraph",
      "isCountersignError",
      "isWait",
      "pending",
      "requestDecision",
      "route",
      "sleep",
      "verifyAuditChain",
      "waitForEvent",
    ]
  `);
  expect(Object.keys(surface).length).toBeLessThanOrEqual(25);
});

it("has these error codes: each is stable, and a test names it", () => {
  expect(Object.keys(EXAMPLES)).toMatchInlineSnapshot(`
    [
      "BOUNDARY",
      "DEFINITION_INVALID",
      "OPTION_INVALID",
      "INPUT_INVALID",
      "PAYLOAD_NOT_JSON",
      "PAYLOAD_TOO_LARGE",
      "NON_DETERMINISM",
      "WAIT_SWALLOWED",
      "LEASE_LOST",
      "THREAD_EXISTS",
      "THREAD_NOT_FOUND",
      "THREAD_STATE",
      "THREAD_FAILED",
      "INTENT_NOT_FOUND",
      "INTENT_ENDED",
      "INTENT_STATE",
      "IDEMPOTENCY_KEY_REUSED",
      "INTENT_DIGEST_MISMATCH",
      "ALREADY_DECIDED",
      "DECISION_NOT_ALLOWED",
      "DECISION_EXPIRED",
      "EDIT_INVALID",
      "OUTPUT_INVALID",
      "HANDLER_TIMEOUT",
      "NON_RETRYABLE",
      "DATABASE_UNAVAILABLE",
      "DATABASE_LOCKED",
      "SCHEMA_TOO_NEW",
      "DURABILITY_NOT_HONOURED",
      "CLOSED",
    ]
  `);
  for (const [code, error] of Object.entries(EXAMPLES)) expect(error.code).toBe(code);
});

it("says what happened, what was seen and what to do, one class like the other", () => {
  const lines = Object.values(EXAMPLES).map((error) => `${error.name}: ${error.message}`);
  expect(lines.join("\n")).toMatchInlineSnapshot(`
    "BoundaryError: A graph reached over the border (graph: g). Call commit().
    DefinitionError: Commitment 'x' has no version. Give it one.
    OptionError: It got a limit that makes no sense. Give another.
    InputError: The input does not fit. Pass another.
    InputError: The input is not JSON. Pass JSON.
    InputError: The input is too large (sizeBytes: 9, maxPayloadBytes: 8). Pass less.
    NonDeterminismError: A re-run of this node reached another wait than the one that was recorded (intentId: i-1, threadId: t-1, recorded: effect a@1, proposed: effect b@1). Calls before a wait must happen in the same order on each run: wrap model calls in LangGraph's task(), give racing calls a { key }, and give a changed graph a new version.
    WaitSwallowedError: A try/catch in this node swallowed a wait, so nothing was recorded (intentId: i-1, threadId: t-1). Take commit(), requestDecision(), waitForEvent() and sleep() out of try/catch, or rethrow what isWait(error) recognises. Business outcomes are values, not exceptions.
    LeaseLostError: The lease was lost, nothing was written (threadId: t-1, leaseToken: 7). Nothing to do: the holder of the newer lease carries the work on.
    ThreadError: It exists (intentId: i-1, threadId: t-1). Take another id.
    ThreadError: It does not exist (intentId: i-1, threadId: t-1). Start it.
    ThreadError: It runs (intentId: i-1, threadId: t-1). Nothing changed.
    ThreadError: It failed (intentId: i-1, threadId: t-1). Retry it.
    IntentError: There is none (intentId: i-1, threadId: t-1). Look again.
    IntentError: It has ended (intentId: i-1, threadId: t-1). Nothing changed.
    IntentError: It does not wait (intentId: i-1, threadId: t-1). Nothing changed.
    IntentError: Reused. Take another key.
    DecisionError: Another payload. Look again.
    DecisionError: Decided (by: mia). Nothing changed.
    DecisionError: Not you. Ask another.
    DecisionError: Too late. Propose it again.
    DecisionError: It does not fit. Correct it.
    HandlerError: The answer does not fit. Mend it.
    HandlerError: Too slow (timeoutMs: 5). Be quick.
    NonRetryableError: The provider refused. Correct the cause, then replay the intent or propose a new one.
    DatabaseError: Away. Try again.
    DatabaseError: Locked (owner: pid 1). Wait.
    DatabaseError: Too new. Upgrade.
    DatabaseError: It does not wait. Upgrade.
    DatabaseError: Closed. Open it again."
  `);
});

describe("a CountersignError", () => {
  it("leaves facts out that are undefined, and keeps those that are null, false or 0", () => {
    const facts = { gone: undefined, none: null, no: false, zero: 0 };
    const error = new OptionError("It happened", { facts, remedy: "Do this." });
    expect(error.message).toBe("It happened (none: null, no: false, zero: 0). Do this.");
    expect(error.facts).toEqual(facts);
  });

  it("has no empty brackets without facts", () => {
    expect(new OptionError("It happened", { facts: { gone: undefined }, remedy: "Do this." }).message).toBe(
      "It happened. Do this.",
    );
    expect(new OptionError("It happened", { remedy: "Do this." }).facts).toEqual({});
  });

  it("carries its cause, and none where there is none", () => {
    const cause = new Error("the disk");
    expect(new OptionError("It happened", { remedy: "Do this.", cause }).cause).toBe(cause);
    expect("cause" in new OptionError("It happened", { remedy: "Do this." })).toBe(false);
  });

  it("is named after its class", () => {
    expect(new LeaseLostError({}).name).toBe("LeaseLostError");
    expect(new LeaseLostError({})).toBeInstanceOf(CountersignError);
    expect(new LeaseLostError({})).toBeInstanceOf(Error);
  });
});

describe("NonRetryableError, which handlers throw", () => {
  it("takes a remedy, facts and a cause of the handler's own", () => {
    const cause = new Error("402");
    const error = new NonRetryableError("No funds", { facts: { account: "a-1" }, remedy: "Top it up.", cause });
    expect(error.message).toBe("No funds (account: a-1). Top it up.");
    expect(error.cause).toBe(cause);
  });
});

describe("isCountersignError", () => {
  it("recognises every error of ours", () => {
    expect(Object.values(EXAMPLES).every((error) => isCountersignError(error))).toBe(true);
  });

  it("recognises one from another copy of the package, by symbol", () => {
    const foreign = Object.assign(new Error("from elsewhere"), { [Symbol.for("countersign.error")]: true });
    expect(isCountersignError(foreign)).toBe(true);
  });

  it.each([new Error("x"), { code: "BOUNDARY" }, null, undefined, "BOUNDARY", 7])("does not recognise %o", (value) => {
    expect(isCountersignError(value)).toBe(false);
  });

  it("recognises by a mark that is not shown when the error is printed or sent as JSON", () => {
    expect(JSON.stringify(EXAMPLES.LEASE_LOST)).not.toContain("countersign.error");
    expect(Object.getOwnPropertySymbols({ ...EXAMPLES.LEASE_LOST })).toEqual([]);
  });
});
