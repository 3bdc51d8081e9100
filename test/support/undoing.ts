import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { type AnyCommitment, type AnyGraph, type Countersign, defineGraph } from "../../src/index.ts";
import { effect, uniqueName } from "./effects.ts";

/** What the handlers of a test did, in their order. */
export type Log = string[];

/** An effect that says in `log` when it is done and undone. */
export function undoable(log: Log, definition: Partial<Parameters<typeof effect>[0]> = {}) {
  return effect({
    execute: async ({ n }) => {
      log.push(`do ${n}`);
      return { ref: `r-${n}` };
    },
    compensate: async ({ input, output, externalRef, reason }) => {
      log.push(`undo ${input.n} ${output?.ref ?? externalRef}: ${reason}`);
    },
    ...definition,
  });
}

const State = Annotation.Root({ end: Annotation<string> });

/** A graph of one node that does what `body` does, and ends with what it returns. */
export function graphWith(
  commitments: AnyCommitment[],
  body: () => Promise<string>,
  options: { readonly onReject?: "compensate"; readonly onFailure?: "compensate" } = {},
) {
  return defineGraph({
    name: uniqueName("undoing"),
    version: 1,
    durability: "durable",
    commitments,
    ...options,
    graph: new StateGraph(State)
      .addNode("act", async () => ({ end: await body() }))
      .addEdge(START, "act")
      .addEdge("act", END),
  });
}

/** Starts the graph, and works until nothing is due any more. */
export async function begin(cs: Countersign, graph: AnyGraph): Promise<string> {
  const { threadId } = await cs.start(graph, { end: "" });
  await cs.work({ until: "idle" });
  return threadId;
}

/** How the thread ended; if it has not, this says so soon. */
export async function endOf(cs: Countersign, threadId: string) {
  const { status, output } = await cs.result<{ end: string }>(threadId, { signal: AbortSignal.timeout(3_000) });
  return { status, end: output?.end };
}

/** The effects of a thread: their numbers and where they stand, in the order of the numbers. */
export async function effectsOf(cs: Countersign, threadId: string): Promise<string[]> {
  const effects = (await cs.intents(threadId)).filter((intent) => intent.kind === "effect");
  return effects.map((intent) => `${(intent.payload as { n: number }).n} ${intent.status}`).sort();
}
