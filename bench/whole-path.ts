import { randomUUID } from "node:crypto";
import { Annotation, Command, END, interrupt, START, StateGraph } from "@langchain/langgraph";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { commit, countersign, defineCommitment, defineGraph } from "countersign";
import { postgres } from "countersign/postgres";
import type pg from "pg";
import { z } from "zod";
import type { BenchDatabase } from "./bench-database.ts";
import { inFlight } from "./in-flight.ts";
import { type Measured, sideBySide } from "./measure.ts";

const THREADS = 96;
const IN_FLIGHT = 24;

const State = Annotation.Root({ n: Annotation<number>, ref: Annotation<string>, ended: Annotation<string> });
const after = ({ ref }: typeof State.State) => ({ ended: ref });
const send = async (n: number) => ({ ref: `ref-${n}` });

const effect = defineCommitment({
  name: "bench.send",
  version: 1,
  sideEffectClass: "internal_write",
  approvalClass: "A0",
  reversibilityClass: "R1",
  sensitivityClass: "S1",
  input: z.object({ n: z.number() }),
  output: z.object({ ref: z.string() }),
  execute: ({ n }) => send(n),
});

/** Two nodes: one commits and waits for the outcome, the next uses it. */
export const committing = defineGraph({
  name: "committing",
  version: 1,
  durability: "durable",
  commitments: [effect],
  graph: new StateGraph(State)
    .addNode("send", async ({ n }) => {
      const outcome = await commit(effect, { n });
      return { ref: outcome.status === "succeeded" ? outcome.output.ref : outcome.status };
    })
    .addNode("after", after)
    .addEdge(START, "send")
    .addEdge("send", "after")
    .addEdge("after", END),
});

/** The same on plain LangGraph: it interrupts, the caller does the work and resumes it with the answer. */
export const interrupting = (pool: pg.Pool) =>
  new StateGraph(State)
    .addNode("send", ({ n }) => ({ ref: (interrupt({ n }) as { ref: string }).ref }))
    .addNode("after", after)
    .addEdge(START, "send")
    .addEdge("send", "after")
    .addEdge("after", END)
    .compile({ checkpointer: new PostgresSaver(pool) });

/**
 * Threads per second from `start()` to the end of a graph that has one effect done for it. The peer has
 * no outbox: whatever it was to do is lost with its process.
 */
export async function benchWholePath(database: BenchDatabase): Promise<Measured> {
  const pool = database.pool();
  await new PostgresSaver(pool).setup();
  const graph = interrupting(pool);
  await using cs = await countersign({ database: pool, graphs: [committing], backend: postgres() });
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  const measured = await sideBySide({
    rounds: 11,
    budgetMs: 9_000,
    ours: () =>
      threadsPerSecond(async () => {
        const { threadId } = await cs.start(committing, { n: 1 } as never);
        const { output } = await cs.result<typeof State.State>(threadId);
        return output?.ended;
      }),
    peer: () =>
      threadsPerSecond(async () => {
        const config = { configurable: { thread_id: randomUUID() }, durability: "sync" as const };
        await graph.invoke({ n: 1 }, config);
        const { ended } = await graph.invoke(new Command({ resume: await send(1) }), config);
        return ended;
      }),
  });
  stop.abort();
  await working;
  return measured;
}

async function threadsPerSecond(thread: () => Promise<string | undefined>): Promise<number> {
  const start = performance.now();
  await inFlight(IN_FLIGHT, THREADS, async () => {
    const ended = await thread();
    if (ended !== "ref-1") throw new Error(`A thread ended with ${ended}`);
  });
  return (THREADS * 1_000) / (performance.now() - start);
}
