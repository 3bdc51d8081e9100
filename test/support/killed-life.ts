import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { z } from "zod";
import { type AnyGraph, commit, defineCommitment, defineGraph } from "../../src/index.ts";

/** Where a process can be told to stop and wait for its end. */
export type Point = "in the node" | "after the claim" | "after the effect" | "after the start" | "nowhere";

export interface LifeInput {
  /** Names the graph, the commitment and the thread, so that no process touches another life. */
  readonly id: string;
  /** What the provider has done: one line per key. */
  readonly file: string;
  readonly semantics?: "at-least-once" | "at-most-once";
  /** Called at each point; does not come back where the process is to stop. */
  readonly reach?: (point: Point) => Promise<void>;
}

/** What the provider has done so far, in its order. */
export function effectsIn(file: string): string[] {
  return existsSync(file) ? readFileSync(file, "utf8").split("\n").slice(0, -1) : [];
}

/** A provider that honours its key: the same one twice is done once. */
function carryOut(file: string, key: string): void {
  if (!effectsIn(file).includes(key)) appendFileSync(file, `${key}\n`);
}

const State = Annotation.Root({ sent: Annotation<string[]>({ reducer: (a, b) => [...a, ...b], default: () => [] }) });

/** The graph that dies: a step, two effects one after the other, and a last step. */
export function lifeGraph({ id, file, semantics = "at-least-once", reach = async () => {} }: LifeInput): AnyGraph {
  const send = defineCommitment({
    name: `${id}.send`,
    version: 1,
    sideEffectClass: "internal_write",
    approvalClass: "A0",
    reversibilityClass: "R1",
    sensitivityClass: "S1",
    semantics,
    input: z.object({ n: z.number() }),
    output: z.object({ ref: z.string() }),
    execute: async ({ n }, { idempotencyKey }) => {
      await reach("after the claim");
      carryOut(file, idempotencyKey);
      await reach("after the effect");
      return { ref: `sent ${n}` };
    },
  });
  const sendIt = async (n: number): Promise<{ sent: string[] }> => {
    const outcome = await commit(send, { n });
    return { sent: [outcome.status === "succeeded" ? outcome.output.ref : outcome.status] };
  };
  return defineGraph({
    name: id,
    version: 1,
    durability: "durable",
    commitments: [send],
    graph: new StateGraph(State)
      .addNode("prepare", async () => {
        await reach("in the node");
        return { sent: ["prepared"] };
      })
      .addNode("first", () => sendIt(1))
      .addNode("second", () => sendIt(2))
      .addEdge(START, "prepare")
      .addEdge("prepare", "first")
      .addEdge("first", "second")
      .addEdge("second", END),
  });
}
