import { DecisionError, IntentError } from "./errors.ts";
import { type ExecutionIntent, hasEnded } from "./intent.ts";
import { type Approver, isFulfilled, mayApproveOwn } from "./policy.ts";

/** Who decides: an id that the embedding application has authenticated, and the roles that they hold. */
export interface Principal {
  readonly id: string;
  readonly roles: readonly string[];
}

export type Verdict = "approve" | "edit" | "reject";

/** One decision as it was recorded. `digest` is that of what was decided: after an edit, the new one. */
export interface RecordedDecision {
  readonly verdict: Verdict;
  readonly principalId: string;
  readonly principalRoles: readonly string[];
  readonly digest: string;
  readonly at: Date;
}

export interface DecisionInput {
  readonly verdict: Verdict;
  readonly by: Principal;
  /** The digest of what the person saw. Optional for a rejection: "no" to anything is safe. */
  readonly digest: string | undefined;
  /** After an edit: the digest of the amended payload. */
  readonly newDigest?: string;
}

/** What a decision does to its intent. */
export type DecisionEffect = "recorded" | "released" | "rejected";

/**
 * Decides whether a decision counts, and what follows from it. Pure: the caller holds the row lock.
 *
 * Approvals count for one digest only, so an edit voids the earlier ones by itself (G3, rule 8),
 * and is the editor's own approval of the new payload (rule 11).
 * @throws IntentError or DecisionError: each reason for a "no" has its own code, and nothing changes.
 */
export function decide(
  intent: ExecutionIntent,
  earlier: readonly RecordedDecision[],
  input: DecisionInput,
  now: Date,
): DecisionEffect {
  assertOpen(intent, earlier, now);
  assertSameDigest(intent, input);
  if (input.verdict === "reject") return "rejected";
  assertFirst(intent, earlier, input);
  assertMayApprove(intent, input);

  const digest = input.newDigest ?? intent.digest;
  const approvers: Approver[] = earlier
    .filter((decision) => decision.verdict !== "reject" && decision.digest === digest)
    .map((decision) => ({ id: decision.principalId, roles: decision.principalRoles }));
  approvers.push(input.by);
  return isFulfilled(intent.requirement, approvers) ? "released" : "recorded";
}

function assertOpen(intent: ExecutionIntent, earlier: readonly RecordedDecision[], now: Date): void {
  const facts = { intentId: intent.id, status: intent.status };
  if (intent.status === "awaiting_decision") {
    // The sweep that marks expired requests may not have run yet; the clock decides, not the sweep.
    if (intent.expiresAt === null || intent.expiresAt > now) return;
    throw new DecisionError("DECISION_EXPIRED", "The request expired before this decision", {
      facts,
      remedy: "Let the graph propose it again.",
    });
  }
  const last = earlier.at(-1);
  // Who expired or was cancelled with some of its approvals was not decided by anybody.
  if (last !== undefined && intent.status !== "expired" && intent.status !== "cancelled") {
    throw new DecisionError("ALREADY_DECIDED", "Somebody else decided first", {
      facts: { ...facts, by: last.principalId, verdict: last.verdict, at: last.at.toISOString() },
      remedy: "Nothing changed. Look at the intent's decisions to see who decided what.",
    });
  }
  if (hasEnded(intent.status)) {
    throw new IntentError("INTENT_ENDED", "The intent has ended and takes no decision any more", {
      facts,
      remedy: "Nothing changed. Let the graph propose a new one if it is still wanted.",
    });
  }
  throw new IntentError("INTENT_STATE", "The intent does not wait for a decision", {
    facts,
    remedy: "Decide only on what pending() lists.",
  });
}

function assertSameDigest(intent: ExecutionIntent, { verdict, digest }: DecisionInput): void {
  if (digest === intent.digest || (verdict === "reject" && digest === undefined)) return;
  throw new DecisionError("INTENT_DIGEST_MISMATCH", "The decision is about another payload than the current one", {
    facts: { intentId: intent.id, decided: digest, current: intent.digest },
    remedy: "Load the intent again, look at what it says now, and decide on its digest.",
  });
}

function assertFirst(
  intent: ExecutionIntent,
  earlier: readonly RecordedDecision[],
  { by, newDigest }: DecisionInput,
): void {
  const digest = newDigest ?? intent.digest;
  if (newDigest === intent.digest) {
    throw new DecisionError("EDIT_INVALID", "The edit changes nothing", {
      facts: { intentId: intent.id },
      remedy: "Approve it instead.",
    });
  }
  const own = earlier.find((decision) => decision.principalId === by.id && decision.digest === digest);
  if (own === undefined) return;
  throw new DecisionError("ALREADY_DECIDED", "This person has decided on this payload already", {
    facts: { intentId: intent.id, by: by.id, verdict: own.verdict, at: own.at.toISOString() },
    remedy: "Each person counts once; the rest must come from somebody else.",
  });
}

function assertMayApprove(intent: ExecutionIntent, { by }: DecisionInput): void {
  const facts = { intentId: intent.id, by: by.id };
  if (by.id === intent.proposedBy && !mayApproveOwn(intent.classes.approvalClass)) {
    throw new DecisionError("DECISION_NOT_ALLOWED", "The proposer does not approve their own proposal", {
      facts,
      remedy: "Ask another person (four eyes, rule 7).",
    });
  }
  const { roles, minApprovers } = intent.requirement;
  // Without free seats every approver must fill a role: a stranger's approval would use up a place.
  const namedOnly = roles.length >= minApprovers && roles.length > 0;
  if (namedOnly && !by.roles.some((held) => roles.some((names) => names.includes(held)))) {
    throw new DecisionError("DECISION_NOT_ALLOWED", "This person holds none of the roles that may decide", {
      facts: { ...facts, required: roles.map((names) => names.join(" or ")).join("; ") },
      remedy: "Ask somebody who holds one of them.",
    });
  }
}
