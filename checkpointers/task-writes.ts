import { type PendingWrite, WRITES_IDX_MAP } from "@langchain/langgraph-checkpoint";
import type { Drive } from "../src/drive.ts";
import { BoundaryError } from "../src/errors.ts";
import type { IntentProposal } from "../src/intent.ts";
import { ERROR_CHANNEL, ERROR_SOURCE_CHANNEL, INTENT_CHANNEL, INTERRUPT_CHANNEL } from "../src/langgraph.ts";

/**
 * A task that threw leaves its partial writes beside its error, and LangGraph would take them for a
 * finished task when the thread goes on (T5): only the special rows are kept. A `ParentCommand` is
 * no failure, although LangGraph writes it down as one.
 */
export function keepable(writes: readonly PendingWrite[]): PendingWrite[] {
  const error = writes.find(([channel]) => channel === ERROR_CHANNEL)?.[1] as { readonly name?: string } | undefined;
  if (error === undefined || error.name === "ParentCommand") return [...writes];
  return writes.filter(([channel]) => channel in WRITES_IDX_MAP || channel === ERROR_SOURCE_CHANNEL);
}

/** What must be recorded with these writes of a task. */
export function proposalsOf(drive: Drive, writes: readonly PendingWrite[], taskId: string): IntentProposal[] {
  const ids: string[] = [];
  let finished = true;
  for (const [channel, value] of writes) {
    if (channel === ERROR_CHANNEL) finished = false;
    if (channel === INTENT_CHANNEL) ids.push(String(value));
    if (channel === INTERRUPT_CHANNEL) {
      finished = false;
      ids.push(...recordedWith(value, taskId));
    }
  }
  if (finished) drive.assertNothingSwallowed(taskId);
  return ids.flatMap((id) => drive.proposals.get(id) ?? []);
}

function recordedWith(value: unknown, taskId: string): readonly string[] {
  const intents = (value as { readonly value?: { readonly intents?: readonly string[] } })?.value?.intents;
  if (intents !== undefined) return intents;
  throw new BoundaryError("A node called LangGraph's interrupt()", {
    facts: { taskId },
    remedy:
      "Call requestDecision() or waitForEvent(): an interrupt has no record that anybody could decide on, and one answer can meet another question.",
  });
}
