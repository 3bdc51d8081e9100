import { describe, expect, it } from "vitest";
import { type DecisionInput, decide, type RecordedDecision } from "../../src/decision.ts";
import type { ExecutionIntent, IntentStatus } from "../../src/index.ts";
import { anIntent } from "../support/intent.ts";

const now = new Date("2026-01-01T12:00:00Z");
const later = (ms: number): Date => new Date(now.getTime() + ms);

const mia = { id: "mia", roles: ["manager"] };
const head = { id: "hana", roles: ["head"] };
const lawyer = { id: "lou", roles: ["legal"] };

const approve = (by: DecisionInput["by"], digest: string | undefined = "d-1"): DecisionInput => ({
  verdict: "approve",
  by,
  digest,
});
const edit = (by: DecisionInput["by"], newDigest: string, digest = "d-1"): DecisionInput => ({
  verdict: "edit",
  by,
  digest,
  newDigest,
});
const reject = (by: DecisionInput["by"], digest?: string): DecisionInput => ({ verdict: "reject", by, digest });

const recorded = (by: DecisionInput["by"], changes: Partial<RecordedDecision> = {}): RecordedDecision => ({
  verdict: "approve",
  principalId: by.id,
  principalRoles: by.roles,
  digest: "d-1",
  at: now,
  ...changes,
});

/** A request of class A2: the function head and legal, both. */
const forTwo = (changes: Partial<ExecutionIntent> = {}): ExecutionIntent =>
  anIntent({
    classes: { ...anIntent().classes, approvalClass: "A2" },
    requirement: { minApprovers: 2, roles: [["head"], ["legal", "finance"]] },
    ...changes,
  });

const codeOf = (intent: ExecutionIntent, earlier: readonly RecordedDecision[], input: DecisionInput): string => {
  try {
    return `no error: ${decide(intent, earlier, input, now)}`;
  } catch (error) {
    return (error as { code: string }).code;
  }
};

describe("what a decision does", () => {
  it("releases the intent with the approval that completes its requirement", () => {
    expect(decide(anIntent(), [], approve(mia), now)).toBe("released");
    expect(decide(forTwo(), [recorded(head)], approve(lawyer), now)).toBe("released");
  });

  it("records an approval that leaves a seat open", () => {
    expect(decide(forTwo(), [], approve(head), now)).toBe("recorded");
    expect(decide(forTwo(), [recorded(head)], approve({ id: "hugo", roles: ["head"] }), now)).toBe("recorded");
  });

  it("takes anybody for a seat that no role is named for", () => {
    const oneNamed = anIntent({ requirement: { minApprovers: 2, roles: [["board"]] } });
    expect(decide(oneNamed, [], approve({ id: "sam", roles: [] }), now)).toBe("recorded");
    expect(decide(oneNamed, [recorded({ id: "sam", roles: [] })], approve({ id: "bo", roles: ["board"] }), now)).toBe(
      "released",
    );
  });

  it("rejects with one person's word, whoever they are and whatever was approved before", () => {
    expect(decide(forTwo(), [recorded(head)], reject({ id: "intern", roles: [] }), now)).toBe("rejected");
  });

  it("lets a person reject what they have approved themselves", () => {
    expect(decide(forTwo(), [recorded(head)], reject(head, "d-1"), now)).toBe("rejected");
  });

  it("lets the proposer reject their own proposal", () => {
    expect(decide(forTwo({ proposedBy: "hana" }), [], reject(head), now)).toBe("rejected");
  });
});

describe("an edit", () => {
  it("is its author's approval of what it says", () => {
    expect(decide(anIntent(), [], edit(mia, "d-2"), now)).toBe("released");
    expect(decide(forTwo(), [], edit(head, "d-2"), now)).toBe("recorded");
  });

  it("voids the approvals of the payload before it (rule 8)", () => {
    expect(decide(forTwo(), [recorded(head)], edit(lawyer, "d-2"), now)).toBe("recorded");
    const afterEdit = [recorded(head), recorded(lawyer, { verdict: "edit", digest: "d-2" })];
    expect(decide(forTwo({ digest: "d-2" }), afterEdit, approve(head, "d-2"), now)).toBe("released");
  });

  it("counts for its new digest only", () => {
    const afterEdit = [recorded(lawyer, { verdict: "edit", digest: "d-2" })];
    expect(decide(forTwo(), afterEdit, approve(head), now)).toBe("recorded");
  });

  it("needs the same authority as an approval", () => {
    expect(codeOf(anIntent(), [], edit({ id: "intern", roles: ["intern"] }, "d-2"))).toBe("DECISION_NOT_ALLOWED");
    expect(codeOf(forTwo({ proposedBy: "hana" }), [], edit(head, "d-2"))).toBe("DECISION_NOT_ALLOWED");
  });

  it("that changes nothing is refused", () => {
    expect(codeOf(anIntent(), [], edit(mia, "d-1"))).toBe("EDIT_INVALID");
  });
});

describe("the digest", () => {
  it("of another payload is refused, for every verdict", () => {
    expect(codeOf(anIntent(), [], approve(mia, "d-0"))).toBe("INTENT_DIGEST_MISMATCH");
    expect(codeOf(anIntent(), [], edit(mia, "d-2", "d-0"))).toBe("INTENT_DIGEST_MISMATCH");
    expect(codeOf(anIntent(), [], reject(mia, "d-0"))).toBe("INTENT_DIGEST_MISMATCH");
  });

  it("may be left out of a rejection only", () => {
    expect(decide(anIntent(), [], reject(mia), now)).toBe("rejected");
    expect(codeOf(anIntent(), [], { ...approve(mia), digest: undefined })).toBe("INTENT_DIGEST_MISMATCH");
    expect(codeOf(anIntent(), [], { ...edit(mia, "d-2"), digest: undefined })).toBe("INTENT_DIGEST_MISMATCH");
  });
});

describe("who may approve", () => {
  it("not one person twice", () => {
    expect(codeOf(forTwo(), [recorded(head)], approve(head))).toBe("ALREADY_DECIDED");
    expect(codeOf(forTwo(), [recorded(head, { digest: "d-2" })], edit(head, "d-2"))).toBe("ALREADY_DECIDED");
  });

  it.each(["A2", "A3"] as const)("not the proposer, for %s (rule 7)", (approvalClass) => {
    const own = forTwo({ proposedBy: "hana", classes: { ...anIntent().classes, approvalClass } });
    expect(codeOf(own, [], approve(head))).toBe("DECISION_NOT_ALLOWED");
  });

  it("the proposer, for A1", () => {
    expect(decide(anIntent({ proposedBy: "mia" }), [], approve(mia), now)).toBe("released");
  });

  it("nobody without a named role, where every seat has one", () => {
    expect(codeOf(anIntent(), [], approve({ id: "intern", roles: ["intern"] }))).toBe("DECISION_NOT_ALLOWED");
    expect(codeOf(anIntent(), [], approve({ id: "intern", roles: [] }))).toBe("DECISION_NOT_ALLOWED");
  });

  it("anybody, where no role is named at all", () => {
    const open = anIntent({ requirement: { minApprovers: 1, roles: [] } });
    expect(decide(open, [], approve({ id: "sam", roles: [] }), now)).toBe("released");
  });
});

describe("a request that is not open", () => {
  it("takes no decision from the instant at which it expires, swept or not (rule 12)", () => {
    expect(codeOf(anIntent({ expiresAt: now }), [], approve(mia))).toBe("DECISION_EXPIRED");
    expect(codeOf(anIntent({ expiresAt: later(-1) }), [], reject(mia))).toBe("DECISION_EXPIRED");
    expect(decide(anIntent({ expiresAt: later(1) }), [], approve(mia), now)).toBe("released");
  });

  it.each([
    "runnable",
    "dispatched",
    "awaiting_external",
    "unknown",
    "succeeded",
    "failed",
    "rejected",
    "compensating",
    "compensated",
    "compensation_failed",
  ] as const satisfies readonly IntentStatus[])("says who decided first, when it is %s by decision", (status) => {
    const first = recorded(mia, { verdict: status === "rejected" ? "reject" : "approve" });
    expect(() => decide(anIntent({ status }), [first], approve(head), now)).toThrow(
      expect.objectContaining({
        code: "ALREADY_DECIDED",
        facts: expect.objectContaining({ by: "mia", verdict: first.verdict, status }),
      }),
    );
  });

  it.each(["expired", "cancelled"] as const)(
    "is said to have ended, when it became %s with half of its approvals",
    (status) => {
      expect(codeOf(forTwo({ status }), [recorded(head)], approve(lawyer))).toBe("INTENT_ENDED");
    },
  );

  it.each(["succeeded", "failed", "rejected", "expired", "cancelled", "compensated"] as const)(
    "is said to have ended, when it became %s without a decision",
    (status) => {
      expect(codeOf(anIntent({ status }), [], approve(mia))).toBe("INTENT_ENDED");
    },
  );

  it.each(["recorded", "runnable", "dispatched", "awaiting_external", "unknown"] as const)(
    "is said not to wait for a decision, when it is %s without one",
    (status) => {
      expect(codeOf(anIntent({ status }), [], approve(mia))).toBe("INTENT_STATE");
    },
  );
});
