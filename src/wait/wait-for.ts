import { type ExecutionIntent, hasEnded, type IntentProposal } from "../intent.ts";
import { INTENT_CHANNEL, waitInterrupt, writeWithTask } from "../langgraph.ts";
import type { WaitingTask } from "./propose.ts";

/** Hands a proposal to the saver without waiting for its outcome. */
export function recordWithoutWaiting(at: WaitingTask, proposal: IntentProposal): void {
  at.drive.proposals.set(proposal.id, proposal);
  at.attempt.unawaited.push(proposal.id);
  writeWithTask(at.task, INTENT_CHANNEL, proposal.id);
}

/** What a call of the graph side asks for, once it is checked. */
export interface Asked {
  readonly at: WaitingTask;
  readonly proposal: IntentProposal;
  readonly recorded: ExecutionIntent | undefined;
}

/**
 * Asks, waits, and reads the outcome. A refusal rejects like any other error; the throw of a wait never
 * ends the process, also where nobody awaits it: the task is told then that it swallowed a wait.
 */
export function askFor<Result>(ask: () => Asked, read: (intent: ExecutionIntent) => Result): Promise<Result> {
  let asked: Asked;
  try {
    asked = ask();
  } catch (error) {
    return Promise.reject(error);
  }
  const result = waitFor(asked).then(read);
  result.catch(() => {});
  return result;
}

/**
 * The outcome of an intent, or the wait for it: then this throws LangGraph's `GraphInterrupt`, with
 * which the saver records what is proposed. All waits of one tick of a task throw as one interrupt,
 * because LangGraph keeps only the last of several.
 */
export function waitFor({ at, proposal, recorded }: Asked): Promise<ExecutionIntent> {
  if (recorded !== undefined && hasEnded(recorded.status)) return Promise.resolve(recorded);
  if (recorded === undefined) at.drive.proposals.set(proposal.id, proposal);
  const { attempt } = at;
  const wait = new Promise<ExecutionIntent>((_resolve, reject) => {
    if (attempt.thrown !== undefined) {
      // A racing call of a task that is already waiting: it will ask again on the next pass.
      reject(attempt.thrown);
      return;
    }
    if (attempt.open.length === 0) setImmediate(throwTogether, at);
    attempt.open.push({ proposal, reject });
  });
  wait.catch(() => {});
  return wait;
}

function throwTogether({ attempt }: WaitingTask): void {
  const waits = attempt.open.splice(0);
  const [first] = waits;
  if (first === undefined) return;
  const interrupt = waitInterrupt(first.proposal.id, {
    ...reviewRequest(waits.map((wait) => wait.proposal)),
    intents: [...waits.map((wait) => wait.proposal.id), ...attempt.unawaited],
  });
  attempt.thrown = interrupt;
  for (const wait of waits) wait.reject(interrupt);
}

/** LangChain's `HITLRequest`, so that UIs which render those can show what is asked. */
function reviewRequest(proposals: readonly IntentProposal[]): object {
  const asked = proposals.filter((proposal) => proposal.status === "awaiting_decision");
  return {
    actionRequests: asked.map((proposal) => ({
      name: proposal.commitment,
      args: proposal.payload,
      description: proposal.payloadSummary,
    })),
    reviewConfigs: asked.map((proposal) => ({
      actionName: proposal.commitment,
      allowedDecisions:
        proposal.kind === "effect" || proposal.editSchema !== null
          ? ["approve", "edit", "reject"]
          : ["approve", "reject"],
    })),
  };
}
