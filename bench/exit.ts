import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { countersign, defineGraph } from "countersign";
import { pglite } from "countersign/pglite";
import { postgres } from "countersign/postgres";
import { atMost, type BenchResult, sideBySide } from "./measure.ts";

const RUNS = 300;
const ROUNDS = 15;

/** An `exit` graph through `cs.start()` beside the same graph invoked by hand. Goal: no more than 2 % dearer. */
export async function benchExit(): Promise<BenchResult[]> {
  const State = Annotation.Root({ text: Annotation<string>, label: Annotation<string> });
  const builder = () =>
    new StateGraph(State)
      .addNode("classify", ({ text }) => ({ label: text.length > 10 ? "long" : "short" }))
      .addNode("polish", ({ label }) => ({ label: label.toUpperCase() }))
      .addEdge(START, "classify")
      .addEdge("classify", "polish")
      .addEdge("polish", END);
  const graph = defineGraph({ name: "classifier", version: 1, durability: "exit", graph: builder() });
  const raw = builder().compile();
  await using cs = await countersign({ database: pglite(), graphs: [graph], backend: postgres() });
  const input = { text: "how are you today", label: "" };
  const timed = async (run: () => Promise<unknown>): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < RUNS; i++) await run();
    return (performance.now() - start) / RUNS;
  };
  const measured = await sideBySide({
    rounds: ROUNDS,
    budgetMs: 30_000,
    ours: () => timed(() => cs.start(graph, input)),
    peer: () => timed(() => raw.invoke(input)),
  });
  return [atMost(1.02, "exit graph, two nodes", "ms", measured)];
}
