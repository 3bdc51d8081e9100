import { z } from "zod";
import { checker, principal, prose, reasonCode, toLine } from "../arguments.ts";
import type { AnyCommitment } from "../commitment.ts";
import type { Database, Queryable } from "../database/client.ts";
import {
  applyDecision,
  cancelIntents,
  type DecidedIntent,
  insertDecision,
  loadDecisions,
  lockWithGroup,
} from "../database/decisions.ts";
import { loadIntent } from "../database/intents.ts";
import { translateRefusal } from "../database/refusals.ts";
import { type DecisionInput, decide, type Principal, type Verdict } from "../decision.ts";
import { digestOf } from "../digest.ts";
import { DecisionError, IntentError } from "../errors.ts";
import { type ExecutionIntent, hasEnded, isIntentId } from "../intent.ts";
import { type Json, toJson } from "../json.ts";
import { type Requirement, requirementOf, strengthen } from "../policy.ts";
import { parseWith } from "../schema.ts";

/** Who approves or edits, and what they saw. */
export interface ApproveOptions {
  readonly by: Principal;
  /** The digest of the intent that the person looked at. */
  readonly digest: string;
  /** Free text, kept under the intent's sensitivity and out of the audit trail. */
  readonly reason?: string;
  /** A short code for the audit trail. */
  readonly reasonCode?: string;
}

/** Who rejects. Without a digest the "no" is to whatever the intent says now. */
export interface RejectOptions extends Omit<ApproveOptions, "digest"> {
  readonly digest?: string;
}

/** What decisions need to know of this process. */
export interface DecideContext {
  readonly database: Database;
  readonly commitments: ReadonlyMap<string, AnyCommitment>;
  readonly maxPayloadBytes: number;
}

interface DecisionRequest {
  readonly intentId: string;
  readonly verdict: Verdict;
  readonly options: RejectOptions;
  /** For an edit: the keys of the payload that get another value. */
  readonly amendment?: Json;
}

const check = checker("A decision", {
  options: z.strictObject({
    by: principal,
    // Whether it is the right one, or may be left out, is for decide() to say.
    digest: z.string().optional(),
    reason: prose.optional(),
    reasonCode: reasonCode.optional(),
  }),
});

/**
 * Records one decision and what follows from it, in one transaction: the decision, the intent's move,
 * its audit row, the end of its siblings after a rejection, and the notifications.
 */
export async function recordDecision(context: DecideContext, request: DecisionRequest): Promise<ExecutionIntent> {
  const { intentId, options } = request;
  if (!isIntentId(intentId)) throw notFound(intentId);
  check({ options });
  try {
    // failpoint: decision.before
    const decided = await context.database.transaction((tx) => decideIn(tx, context, request));
    // failpoint: decision.after
    return decided;
  } catch (error) {
    throw translateRefusal(error);
  }
}

async function decideIn(tx: Queryable, context: DecideContext, request: DecisionRequest): Promise<ExecutionIntent> {
  const { intentId, verdict, options } = request;
  const group = await lockWithGroup(tx, intentId);
  const current = group.find((intent) => intent.id === intentId);
  if (current === undefined) throw notFound(intentId);
  const earlier = await loadDecisions(tx, intentId);
  const edited =
    verdict === "edit" && current.status === "awaiting_decision" ? amend(context, current, request) : undefined;
  const intent = edited === undefined ? current : { ...current, requirement: edited.requirement };
  const input: DecisionInput = {
    verdict,
    by: options.by,
    digest: options.digest,
    ...(edited === undefined ? {} : { newDigest: edited.digest }),
  };
  const effect = decide(intent, earlier, input, await clockOf(tx));

  await insertDecision(tx, {
    intentId,
    verdict,
    by: options.by,
    digest: edited?.digest ?? current.digest,
    previousDigest: edited === undefined ? null : current.digest,
    reason: options.reason ?? null,
  });
  // failpoint: decision.within
  await applyDecision(tx, {
    id: intentId,
    status: statusAfter(current, effect),
    action: ACTIONS[verdict],
    by: options.by.id,
    reasonCode: options.reasonCode ?? null,
    reason: options.reason ?? null,
    ...(edited === undefined ? {} : { edited }),
  });
  if (effect === "rejected" && group.length > 1) await endSiblings(tx, group, options.by);
  return (await loadIntent(tx, intentId)) as ExecutionIntent;
}

const ACTIONS = {
  approve: "decision.approved",
  edit: "decision.edited",
  reject: "decision.rejected",
} as const satisfies Record<Verdict, DecidedIntent["action"]>;

function statusAfter({ kind }: ExecutionIntent, effect: "recorded" | "released" | "rejected"): DecidedIntent["status"] {
  if (effect === "rejected") return "rejected";
  if (effect === "recorded") return "awaiting_decision";
  return kind === "decision" ? "succeeded" : "runnable";
}

/** G5: a rejection leaves nothing of its `commitAll` runnable, nor what runs already to be tried again. */
async function endSiblings(tx: Queryable, group: readonly ExecutionIntent[], by: Principal): Promise<void> {
  const ids = group.filter((intent) => !hasEnded(intent.status)).map((intent) => intent.id);
  await cancelIntents(tx, { ids, by: by.id, byType: "human", reasonCode: "sibling_rejected" });
}

type Edited = NonNullable<DecidedIntent["edited"]>;

/** The payload after an edit: its top-level keys replaced, validated, with a digest and a key of its own. */
function amend(context: DecideContext, intent: ExecutionIntent, { amendment }: DecisionRequest): Edited {
  const candidate = isObject(intent.payload) && isObject(amendment) ? { ...intent.payload, ...amendment } : amendment;
  if (intent.kind === "decision") {
    const payload = toJson(
      validate(intent, decisionSchema(intent), candidate),
      "The edited payload",
      context.maxPayloadBytes,
    );
    return { ...intent, payload, digest: digestOf({ ...intent, payload }), summary: intent.payloadSummary };
  }
  const commitment = context.commitments.get(intent.workflowKey);
  if (commitment === undefined) {
    throw new DecisionError(
      "EDIT_INVALID",
      "The commitment is not registered in this process, so the edit cannot be checked",
      {
        facts: { intentId: intent.id, commitment: intent.workflowKey },
        remedy: "Edit it in a process whose countersign({ graphs }) declares the commitment.",
      },
    );
  }
  const parsed = validate(intent, commitment.input, candidate);
  const payload = toJson(parsed, "The edited payload", context.maxPayloadBytes);
  return {
    payload,
    digest: digestOf({ commitment: intent.commitment, version: intent.version, payload }),
    summary: commitment.summary(parsed),
    idempotencyKey: commitment.idempotencyKey?.(parsed) ?? intent.idempotencyKey,
    requirement: requirementAfter(commitment, intent, parsed),
  };
}

/** What the commitment asks for the new payload, with all that the call had asked on top of it for the old one. */
function requirementAfter(commitment: AnyCommitment, intent: ExecutionIntent, payload: unknown): Requirement {
  const before = requirementOf(commitment.classes, commitment.approvers(intent.payload));
  const after = requirementOf(commitment.classes, commitment.approvers(payload));
  const { roles, minApprovers } = intent.requirement;
  return strengthen(after, { roles: roles.slice(before.roles.length), minApprovers });
}

function isObject(value: unknown): value is Record<string, Json> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function decisionSchema(intent: ExecutionIntent): z.ZodType {
  if (intent.editSchema !== null) return z.fromJSONSchema(intent.editSchema as never);
  throw new DecisionError("EDIT_INVALID", "This decision takes no edit", {
    facts: { intentId: intent.id },
    remedy: "Approve or reject it, or let the node pass a schema to requestDecision().",
  });
}

function validate(intent: ExecutionIntent, schema: z.ZodType, candidate: unknown): unknown {
  const result = parseWith(schema, candidate);
  if (result.fits) return result.value;
  throw new DecisionError("EDIT_INVALID", "The edited payload does not fit the schema", {
    facts: {
      intentId: intent.id,
      commitment: intent.workflowKey,
      paths: result.paths,
    },
    remedy: "Nothing changed. Correct the edit.",
  });
}

/** @internal */
export function notFound(asked: unknown): IntentError {
  return new IntentError("INTENT_NOT_FOUND", "There is no such intent", {
    facts: { intentId: typeof asked === "string" ? toLine(asked) : `a ${typeof asked}` },
    remedy: "Take ids from pending() or intents(threadId).",
  });
}

async function clockOf(tx: Queryable): Promise<Date> {
  const [row] = await tx.query<{ now: Date }>({ text: `select ${tx.schema}.clock() as now` });
  return (row as { now: Date }).now;
}
