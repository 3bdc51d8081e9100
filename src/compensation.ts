import type { ExecutionIntent } from "./intent.ts";

/*
 * Undoing what a thread did (design §7). A `compensation` intent without `compensates` is the request
 * to undo: recorded by compensate() in a node, or by the database itself in the transaction of a
 * rejection. It stays open while its steps run; each step is an intent of its own that undoes one
 * effect and becomes runnable when the one before it has ended. This file decides the next move from
 * the thread's rows alone, so that any process can make it, after any crash.
 */

/** What to do next for a thread with an open request to undo. */
export type CompensationMove =
  /** These have not started, or are pending outside: they are given up. */
  | { readonly kind: "cancel"; readonly ids: readonly string[]; readonly request: ExecutionIntent }
  /** The step that undoes this effect ended: the effect says so, too. */
  | { readonly kind: "mark"; readonly effect: ExecutionIntent; readonly status: "compensated" | "compensation_failed" }
  | { readonly kind: "again"; readonly effect: ExecutionIntent }
  | { readonly kind: "step"; readonly effect: ExecutionIntent; readonly request: ExecutionIntent }
  | { readonly kind: "end"; readonly request: ExecutionIntent; readonly status: "succeeded" | "failed" }
  /** Something is still under way; its end brings us back. What runs is let end, and not tried again. */
  | { readonly kind: "wait"; readonly running: readonly string[] };

/**
 * The next move, or `undefined` when nothing is left to do.
 * A step that fails for good does not stop the earlier ones from being tried.
 */
export function nextCompensationMove(intents: readonly ExecutionIntent[]): CompensationMove | undefined {
  const effects = intents.filter((intent) => intent.kind === "effect");
  const steps = new Map(
    intents.flatMap((intent) => (intent.compensates === null ? [] : [[intent.compensates, intent]])),
  );
  for (const effect of effects) {
    const step = steps.get(effect.id);
    if (step !== undefined) {
      const marked = mark(effect, step);
      if (marked !== undefined) return marked;
    }
  }

  const request = intents.find(
    (intent) => intent.kind === "compensation" && intent.compensates === null && intent.status === "awaiting_external",
  );
  if (request === undefined) return undefined;
  const covered = effects.filter((effect) => covers(request, effect));

  const unstarted = intents.filter(
    (intent) => covers(request, intent) && ["effect", "decision"].includes(intent.kind) && isUnstarted(intent),
  );
  if (unstarted.length > 0) return { kind: "cancel", ids: unstarted.map((intent) => intent.id).sort(), request };
  if ([...steps.values()].some(isUnderWay) || covered.some(isUnderWay)) {
    return { kind: "wait", running: covered.filter(({ status }) => status === "dispatched").map(({ id }) => id) };
  }

  const [latest] = covered
    .filter((effect) => isUndoable(effect) && !steps.has(effect.id))
    .sort((a, b) => endOf(b) - endOf(a));
  if (latest !== undefined) return { kind: "step", effect: latest, request };

  const failed = covered.some((effect) => steps.get(effect.id)?.status === "failed");
  return { kind: "end", request, status: failed ? "failed" : "succeeded" };
}

/** A request undoes what was recorded before it: of the thread, or of one `commitAll`. */
function covers(request: ExecutionIntent, intent: ExecutionIntent): boolean {
  const { group } = request.payload as { readonly group?: string | null };
  return intent.createdAt <= request.createdAt && (group == null || intent.groupId === group);
}

function mark(effect: ExecutionIntent, step: ExecutionIntent): CompensationMove | undefined {
  if (effect.status === "compensating" && step.status === "succeeded")
    return { kind: "mark", effect, status: "compensated" };
  if (effect.status === "compensating" && step.status === "failed") {
    return { kind: "mark", effect, status: "compensation_failed" };
  }
  // The failed step was replayed.
  if (effect.status === "compensation_failed" && step.status !== "failed") return { kind: "again", effect };
  return undefined;
}

function isUnstarted({ status }: ExecutionIntent): boolean {
  return (
    status === "recorded" || status === "awaiting_decision" || status === "runnable" || status === "awaiting_external"
  );
}

function isUnderWay({ status }: ExecutionIntent): boolean {
  return status === "runnable" || status === "dispatched" || status === "unknown";
}

/**
 * Done; or possibly done (rule 16): given up after its handler was called without an answer that says no,
 * or run out of time while it was pending at the provider.
 */
function isUndoable({ compensable, status, attempt, externalRef }: ExecutionIntent): boolean {
  const leftOpen =
    status === "cancelled" ? attempt > 0 || externalRef !== null : status === "expired" && externalRef !== null;
  return compensable && (status === "succeeded" || leftOpen);
}

function endOf(effect: ExecutionIntent): number {
  return effect.endedAt?.getTime() ?? 0;
}
