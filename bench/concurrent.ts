import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { CountersignSaver } from "countersign/checkpointers";
import { withDatabase } from "./bench-database.ts";
import { CHAIN_STEPS, chainUnder } from "./chain.ts";
import { atLeast, type BenchResult, sideBySide } from "./measure.ts";

/** Threads at once. */
const THREADS = 64;

/** Durable supersteps per second with many threads at once in one process, beside `PostgresSaver`. */
export function benchConcurrent(): Promise<BenchResult[]> {
  return withDatabase(async (database) => {
    const pool = database.pool();
    const savers = { ours: new CountersignSaver(pool), peer: new PostgresSaver(pool) };
    await savers.ours.setup();
    await savers.peer.setup();
    const measured = await sideBySide({
      rounds: 11,
      budgetMs: 30_000,
      ours: rate(chainUnder(savers.ours)),
      peer: rate(chainUnder(savers.peer)),
    });
    return [atLeast(3, `${THREADS} threads at once`, "supersteps/s", measured)];
  });
}

function rate(run: () => Promise<void>): () => Promise<number> {
  return async () => {
    const start = performance.now();
    await Promise.all(Array.from({ length: THREADS }, run));
    return (THREADS * CHAIN_STEPS * 1_000) / (performance.now() - start);
  };
}
