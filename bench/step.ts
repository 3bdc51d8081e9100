import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { countersign } from "countersign";
import { CountersignSaver } from "countersign/checkpointers";
import { postgres } from "countersign/postgres";
import type pg from "pg";
import { withDatabase } from "./bench-database.ts";
import { CHAIN_STEPS, chainGraph, chainInput, chainUnder } from "./chain.ts";
import { withDelay } from "./delay.ts";
import { atMost, type BenchResult, type Measured, sideBySide } from "./measure.ts";

/**
 * Threads of a turn, one after the other: on a database that is near, and on one that is far. A turn lasts
 * about a second, since the first few after a change of turns are slower than a process that goes on alone.
 */
const NEAR = { threads: 40, warmUpMs: 3_000, budgetMs: 8_000 };
const FAR = { threads: 5, warmUpMs: 1_000, budgetMs: 6_000 };
/** What the proxy adds in each direction. */
const DELAY_MS = 1;

/**
 * What a durable superstep takes, with one thread at a time, beside `PostgresSaver`: as a checkpointer
 * alone, and under `cs.start()` with the lease, the fence and the thread's own row.
 */
export function benchStep(): Promise<BenchResult[]> {
  return withDatabase(async (database) => {
    const pool = database.pool();
    await new CountersignSaver(pool).setup();
    await new PostgresSaver(pool).setup();
    const near = await compare(pool, NEAR);
    const far = await withDelay(database.url, DELAY_MS, (url) =>
      compare(database.pool({ connectionString: url }), FAR),
    );
    return [
      atMost(0.6, "loopback", "ms", near.alone),
      atMost(0.6, "loopback, under cs.start()", "ms", near.driven),
      atMost(0.17, `${DELAY_MS} ms each way`, "ms", far.alone),
      atMost(0.17, `${DELAY_MS} ms each way, under cs.start()`, "ms", far.driven),
    ];
  });
}

async function compare(
  pool: pg.Pool,
  { threads, ...times }: typeof NEAR,
): Promise<{ alone: Measured; driven: Measured }> {
  const graph = chainGraph();
  await using cs = await countersign({ database: pool, graphs: [graph], backend: postgres() });
  const drive = async (): Promise<void> => {
    const { status, error } = await cs.start(graph, chainInput as never);
    if (status !== "completed") throw new Error(`A thread is ${status}: ${error?.message}`);
  };
  const peer = perStep(threads, chainUnder(new PostgresSaver(pool)));
  const turns = { rounds: 11, ...times, peer };
  return {
    alone: await sideBySide({ ...turns, ours: perStep(threads, chainUnder(new CountersignSaver(pool))) }),
    driven: await sideBySide({ ...turns, ours: perStep(threads, drive) }),
  };
}

/** Milliseconds per superstep, over some threads one after the other. */
function perStep(threads: number, run: () => Promise<void>): () => Promise<number> {
  return async () => {
    const start = performance.now();
    for (let thread = 0; thread < threads; thread++) await run();
    return (performance.now() - start) / (threads * CHAIN_STEPS);
  };
}
