import { z } from "zod";
import { anything, checker, principal, prose, reasonCode, text } from "../arguments.ts";
import type { AnyCommitment } from "../commitment.ts";
import type { Database, Queryable } from "../database/client.ts";
import { lockThreadIntents } from "../database/compensation.ts";
import { cancelIntents, lockWithGroup } from "../database/decisions.ts";
import { type ExternalActor, endFromOutside, replayIntent } from "../database/external.ts";
import { loadIntent, loadIntentByExternalRef } from "../database/intents.ts";
import { translateRefusal } from "../database/refusals.ts";
import { insertEvent, matchEvents } from "../database/sweep.ts";
import { cancelThread, loadThread } from "../database/threads.ts";
import type { Principal } from "../decision.ts";
import { HandlerError, IntentError, ThreadError } from "../errors.ts";
import { type ExecutionIntent, hasEnded, isIntentId } from "../intent.ts";
import { type Json, toJson } from "../json.ts";
import { parseWith } from "../schema.ts";
import { notFound } from "./decide.ts";
import { unknownThread } from "./timeline.ts";

/** Which effect a webhook is about: by our id, or by the reference that the provider gave the handler. */
export type EffectRef =
  | { readonly intentId: string }
  | { readonly commitment: AnyCommitment; readonly externalRef: string };

export interface CompleteOptions {
  /** What the effect gave, as the commitment's output schema has it. */
  readonly output: unknown;
  /** The provider's proof. Needed to settle an `unknown` effect as done (rule 15). */
  readonly receipt?: unknown;
  /** Who says so, when a person does. */
  readonly by?: Principal;
}

export interface FailOptions {
  readonly reason: string;
  /** A short code for the audit trail. */
  readonly reasonCode?: string;
  readonly by?: Principal;
}

export interface OutsideContext {
  readonly database: Database;
  readonly commitments: ReadonlyMap<string, AnyCommitment>;
  readonly maxPayloadBytes: number;
  /** Lets the backend let go of an intent that was ended here. */
  readonly released: (intent: ExecutionIntent) => void;
}

const ref = z.union([
  z.looseObject({ intentId: z.string() }),
  z.looseObject({ commitment: z.looseObject({ name: z.string() }), externalRef: text }),
]);
const checkComplete = checker("complete()", {
  ref,
  options: z.strictObject({ output: anything, receipt: anything, by: principal.optional() }),
});
const checkFail = checker("fail()", {
  ref,
  options: z.strictObject({ reason: prose, reasonCode: reasonCode.optional(), by: principal.optional() }),
});
const byPerson = { options: z.strictObject({ by: principal }) };
const checkCancelIntent = checker("cancelIntent()", byPerson);
const checkReplay = checker("replay()", byPerson);
const checkCancel = checker("cancel()", { threadId: text, ...byPerson });
const checkEvent = checker("sendEvent()", {
  threadId: text,
  event: z.looseObject({ name: text, eventId: text, payload: anything }),
});

/** Who does it, for the audit trail. */
export interface ByPerson {
  readonly by: Principal;
}

/**
 * Ends an effect as done, by word from outside. The same word twice is one outcome: an effect that
 * succeeded already stays as it is.
 */
export async function completeEffect(context: OutsideContext, ref: EffectRef, options: CompleteOptions): Promise<void> {
  checkComplete({ ref, options });
  const intent = await find(context, ref);
  const commitment = context.commitments.get(intent.workflowKey);
  const { maxPayloadBytes } = context;
  const output =
    commitment === undefined
      ? toJson(options.output, "The output", maxPayloadBytes)
      : parseOutput(commitment, options.output, maxPayloadBytes);
  await end(context, intent, options.by, "completed", {
    status: "succeeded",
    output,
    receipt: options.receipt === undefined ? null : toJson(options.receipt, "The receipt", maxPayloadBytes),
  });
}

/** Ends an effect as failed, by word from outside. */
export async function failEffect(context: OutsideContext, ref: EffectRef, options: FailOptions): Promise<void> {
  checkFail({ ref, options });
  const intent = await find(context, ref);
  const error = { code: "PROVIDER_FAILED", message: options.reason };
  await end(context, intent, options.by, options.reasonCode ?? "failed", { status: "failed", error });
}

function parseOutput(commitment: AnyCommitment, output: unknown, maxBytes: number): Json {
  const result = parseWith(commitment.output, output);
  if (result.fits) return toJson(result.value ?? null, `The output of '${commitment.workflowKey}'`, maxBytes);
  throw new HandlerError("OUTPUT_INVALID", "The output does not fit the commitment's schema", {
    facts: {
      commitment: commitment.workflowKey,
      paths: result.paths,
    },
    remedy: "Nothing changed. Pass what its output schema describes.",
  });
}

async function find({ database }: OutsideContext, ref: EffectRef): Promise<ExecutionIntent> {
  const intent =
    "intentId" in ref
      ? await loadIntent(database, ref.intentId)
      : await loadIntentByExternalRef(database, { commitment: ref.commitment.name, externalRef: ref.externalRef });
  if (intent !== undefined && intent.kind === "effect") return intent;
  throw notFound("intentId" in ref ? ref.intentId : `external reference ${ref.externalRef}`);
}

async function end(
  context: OutsideContext,
  intent: ExecutionIntent,
  by: Principal | undefined,
  reasonCode: string,
  result: Parameters<typeof endFromOutside>[1]["result"],
): Promise<void> {
  if (intent.status === result.status) return;
  const actor: ExternalActor =
    by === undefined ? { type: "automated_workflow", id: "webhook" } : { type: "human", id: by.id };
  const ended = await endFromOutside(context.database, {
    intentId: intent.id,
    backend: intent.backend ?? "",
    by: actor,
    reasonCode,
    result,
  });
  if (ended) {
    context.released(intent);
    return;
  }
  const now = await loadIntent(context.database, intent.id);
  if (now?.status === result.status) return;
  const code = now !== undefined && hasEnded(now.status) ? "INTENT_ENDED" : "INTENT_STATE";
  throw new IntentError(code, "The effect cannot be ended from outside in the state that it is in", {
    facts: { intentId: intent.id, status: now?.status },
    remedy: "Only an effect that is dispatched or pending ends so; an unknown one as done with the provider's receipt.",
  });
}

/** Gives up one intent: at once if it has not started, by its signal if it runs. */
export async function cancelIntent(context: OutsideContext, intentId: string, options: ByPerson): Promise<void> {
  checkCancelIntent({ options });
  const { by } = options;
  if (!isIntentId(intentId)) throw notFound(intentId);
  const cancelled = await context.database.transaction(async (tx) => {
    const group = await lockWithGroup(tx, intentId);
    const target = group.find(({ id }) => id === intentId);
    if (target === undefined) throw notFound(intentId);
    if (target.kind === "compensation") throw undoing(intentId);
    if (target.status === "unknown") throw unknownOutcome(intentId);
    if (hasEnded(target.status)) throw alreadyEnded(target);
    const open = group.filter((intent) => !hasEnded(intent.status));
    const ids = await cancelIntents(tx, {
      ids: open.map((intent) => intent.id),
      by: by.id,
      byType: "human",
      reasonCode: "cancelled",
    });
    return open.filter((intent) => ids.includes(intent.id));
  });
  for (const intent of cancelled) context.released(intent);
}

function alreadyEnded({ id, status }: ExecutionIntent): IntentError {
  return new IntentError("INTENT_ENDED", "The intent has ended and cannot be cancelled", {
    facts: { intentId: id, status },
    remedy: "Undo it with compensate() in the graph.",
  });
}

function unknownOutcome(intentId: string): IntentError {
  return new IntentError("INTENT_STATE", "Nobody knows yet whether this effect was done, so it cannot be cancelled", {
    facts: { intentId },
    remedy: "Ask the provider, then cs.complete() with its receipt, or cs.fail().",
  });
}

function undoing(intentId: string): IntentError {
  return new IntentError("INTENT_STATE", "What undoes an effect cannot be cancelled", {
    facts: { intentId },
    remedy: "It ends by itself: as done, or as a dead letter that can be replayed.",
  });
}

/** Ends a thread: nothing more of it is recorded or started. What runs is asked to stop. */
export async function cancelThreadById(context: OutsideContext, threadId: string, options: ByPerson): Promise<void> {
  checkCancel({ threadId, options });
  const { by } = options;
  const cancelled = await context.database.transaction(async (tx) => {
    const intents = await lockThreadIntents(tx, threadId);
    // What is being undone is undone to its end.
    const open = intents.filter((intent) => !hasEnded(intent.status) && intent.kind !== "compensation");
    const ids = await cancelIntents(tx, {
      ids: open.map((intent) => intent.id),
      by: by.id,
      byType: "human",
      reasonCode: "cancelled",
    });
    if (!(await cancelThread(tx, threadId, by.id))) throw await notCancellable(tx, threadId);
    return open.filter((intent) => ids.includes(intent.id));
  });
  for (const intent of cancelled) context.released(intent);
}

async function notCancellable(tx: Queryable, threadId: string): Promise<ThreadError> {
  const thread = await loadThread(tx, threadId);
  if (thread === undefined) return unknownThread(threadId);
  return new ThreadError("THREAD_STATE", "The thread has ended and cannot be cancelled", {
    facts: { threadId, status: thread.status },
    remedy: "Nothing changed.",
  });
}

/** Runs a dead letter again. The graph that was told `failed` is not told again. */
export async function replay(context: OutsideContext, intentId: string, options: ByPerson): Promise<ExecutionIntent> {
  checkReplay({ options });
  const { by } = options;
  if (!isIntentId(intentId)) throw notFound(intentId);
  const failed = await loadIntent(context.database, intentId);
  const timeoutMs = context.commitments.get(failed?.workflowKey ?? "")?.decisionTimeoutMs ?? TWO_DAYS_MS;
  const actor: ExternalActor = { type: "human", id: by.id };
  const asked = { intentId, by: actor, decisionTimeoutMs: timeoutMs };
  const replayed = await context.database
    .transaction((tx) => replayIntent(tx, asked))
    .catch((error: unknown) => {
      throw translateRefusal(error);
    });
  const intent = await loadIntent(context.database, intentId);
  if (intent === undefined) throw notFound(intentId);
  if (replayed) return intent;
  throw new IntentError(
    "INTENT_STATE",
    "Only an intent that failed for good can be replayed, and that nobody gave up",
    {
      facts: { intentId, status: intent.status },
      remedy: "What was undone, or belongs to what was rejected or cancelled, is proposed anew instead.",
    },
  );
}

/** How long a replayed request waits for people where its commitment is not registered here. */
const TWO_DAYS_MS = 48 * 3_600_000;

export interface EventInput {
  readonly name: string;
  readonly payload?: unknown;
  /** The sender's own id of the event: the same one twice counts once. */
  readonly eventId: string;
}

/** Sends an event to a thread. It is kept if nothing waits for it yet. @returns false when it came before. */
export async function sendEvent(context: OutsideContext, threadId: string, event: EventInput): Promise<boolean> {
  checkEvent({ threadId, event });
  const payload = toJson(event.payload ?? null, `The payload of the event '${event.name}'`, context.maxPayloadBytes);
  if ((await loadThread(context.database, threadId)) === undefined) throw unknownThread(threadId);
  return context.database.transaction(async (tx) => {
    const fresh = await insertEvent(tx, { threadId, name: event.name, eventId: event.eventId, payload });
    if (fresh) await matchEvents(tx, threadId);
    return fresh;
  });
}
