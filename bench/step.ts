import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { countersign } from "countersign";
import { CountersignSaver } from "countersign/checkpointers";
import { postgres } from "countersign/postgres";
import type pg from "pg";
import { withDatabase } from "./bench-database.ts";
import { chainGraph, chainInput, chainUnder } from "./chain.ts";
import { withDelay } from "./delay.ts";
import { atMost, type BenchResult, sideBySide } from "./measure.ts";

/** Supersteps of one thread. */
const STEPS = 40;
/** Threads of a round, one after the other, on a database that is near. */
const NEAR_THREADS = 4;
/** What the proxy adds in each direction. */
const DELAY_MS = 1;

/**
 * What a durable superstep takes, with one thread at a time, beside `PostgresSaver`: as a checkpointer
 * alone, and under `cs.start()` with the lease, the fence and the thread's own row.
 */
export function benchStep(): Promise<BenchResult[]> {
  return withDatabase(async (database) => {
    await setUp(database.pool());
    const near = await compare(database.pool(), NEAR_THREADS);
    const far = await withDelay(database.url, DELAY_MS, (url) => compare(database.pool({ connectionString: url }), 1));
    return [
      atMost(0.6, "loopback", "ms", near.alone),
      atMost(0.6, "loopback, under cs.start()", "ms", near.driven),
      atMost(0.17, `${DELAY_MS} ms each way`, "ms", far.alone),
      atMost(0.17, `${DELAY_MS} ms each way, under cs.start()`, "ms", far.driven),
    ];
  });
}

async function setUp(pool: pg.Pool): Promise<void> {
  await new CountersignSaver(pool).setup();
  await new PostgresSaver(pool).setup();
}

async function compare(pool: pg.Pool, threads: number) {
  const graph = chainGraph();
  await using cs = await countersign({ database: pool, graphs: [graph], backend: postgres() });
  const drive = async (steps: number): Promise<void> => {
    const { status, error } = await cs.start(graph, chainInput(steps), { recursionLimit: steps + 2 });
    if (status !== "completed") throw new Error(`A thread is ${status}: ${error?.message}`);
  };
  const peer = perStep(threads, chainUnder(new PostgresSaver(pool)));
  const turns = { rounds: 11, budgetMs: 9_000, peer };
  return {
    alone: await sideBySide({ ...turns, ours: perStep(threads, chainUnder(new CountersignSaver(pool))) }),
    driven: await sideBySide({ ...turns, ours: perStep(threads, drive) }),
  };
}

/** Milliseconds per superstep, over some threads one after the other. */
function perStep(threads: number, run: (steps: number) => Promise<void>): () => Promise<number> {
  return async () => {
    const start = performance.now();
    for (let thread = 0; thread < threads; thread++) await run(STEPS);
    return (performance.now() - start) / (threads * STEPS);
  };
}
