import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { z } from "zod";
import {
  type AnyCommitment,
  type AnyGraph,
  type Commitment,
  type CommitmentDefinition,
  type Countersign,
  defineCommitment,
  defineGraph,
  type ExecutionIntent,
  type Principal,
} from "../../src/index.ts";

/** Somebody who may approve an A1 commitment. */
export const mia: Principal = { id: "mia", roles: ["manager"] };

export interface Message {
  readonly text: string;
}
export interface Receipt {
  readonly ref: string;
}
type Overrides = Partial<CommitmentDefinition<Message, Receipt>>;

/** A commitment, and what its handler was called with. */
export interface Messenger {
  readonly send: Commitment<Message, Receipt>;
  readonly calls: string[];
}

let made = 0;

/** An external message that one person must approve; its handler only notes what it was called with. */
export function messenger(overrides: Overrides = {}): Messenger {
  const calls: string[] = [];
  const send = defineCommitment<Message, Receipt>({
    name: `message-${++made}.send`,
    version: 1,
    sideEffectClass: "external_message",
    approvalClass: "A1",
    reversibilityClass: "R2",
    sensitivityClass: "S1",
    input: z.object({ text: z.string() }),
    output: z.object({ ref: z.string() }),
    execute: async ({ text }) => {
      calls.push(text);
      return { ref: `ref-${text}` };
    },
    ...overrides,
  });
  return { send, calls };
}

/** The same inside the house: nobody needs to approve it, so it runs as soon as it is recorded. */
export function scribe(overrides: Overrides = {}): Messenger {
  return messenger({
    sideEffectClass: "internal_write",
    approvalClass: "A0",
    reversibilityClass: "R0",
    ...overrides,
  });
}

/** State of the test graphs: what their nodes say, in order. */
export const Log = Annotation.Root({
  log: Annotation<string[]>({ reducer: (before, more) => [...before, ...more], default: () => [] }),
});
export type LogState = typeof Log.State;

/** A durable graph of one node, which says what it got. */
export function oneNode(
  node: (state: LogState) => Promise<{ log?: string[] }>,
  commitments: readonly AnyCommitment[] = [],
  name = `graph-${++made}`,
): AnyGraph {
  return defineGraph({
    name,
    version: 1,
    durability: "durable",
    commitments,
    graph: new StateGraph(Log).addNode("node", node).addEdge(START, "node").addEdge("node", END),
  });
}

/** Approves an intent as it stands. */
export function approve(cs: Countersign, intent: ExecutionIntent, by: Principal = mia): Promise<ExecutionIntent> {
  return cs.approve(intent.id, { by, digest: intent.digest });
}

/** Approves whatever waits on a thread, again and again, and does the work, until nothing waits for people. */
export async function approveAll(cs: Countersign, threadId: string): Promise<void> {
  for (;;) {
    await cs.work({ until: "idle" });
    const pending = await cs.pending({ threadId });
    if (pending.length === 0) return;
    for (const intent of pending) await approve(cs, intent);
  }
}

/** What a messenger's intent says. */
export function textOf({ payload }: ExecutionIntent): string | undefined {
  return (payload as Partial<Message> | null)?.text;
}

/** The pending intent that says this. */
export async function pendingText(cs: Countersign, threadId: string, text: string): Promise<ExecutionIntent> {
  const found = (await cs.pending({ threadId })).find((intent) => textOf(intent) === text);
  if (found === undefined) throw new Error(`nothing pending says '${text}' on ${threadId}`);
  return found;
}

/** What the pending intents of a thread say, sorted. */
export async function pendingTexts(cs: Countersign, threadId: string): Promise<(string | undefined)[]> {
  return (await cs.pending({ threadId })).map(textOf).sort();
}
