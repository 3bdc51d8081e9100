import { type AddJobFunction, Logger, makeWorkerUtils, type Runner, run } from "graphile-worker";
import type pg from "pg";

const quiet = new Logger(() => () => {});

/** A graphile-worker with one task, in this process. */
export interface Graphile {
  addJob: AddJobFunction;
  runner: Runner;
  stop(): Promise<void>;
}

/** Starts it as its own benchmarks do, one job per statement: no local queue, no batched completion. */
export async function startGraphile(pool: pg.Pool, atOnce: number, handler: () => void): Promise<Graphile> {
  const utils = await makeWorkerUtils({ pgPool: pool, logger: quiet });
  await utils.migrate();
  const runner = await run({
    pgPool: pool,
    concurrency: atOnce,
    noHandleSignals: true,
    logger: quiet,
    taskList: { effect: async () => handler() },
  });
  return {
    addJob: utils.addJob,
    runner,
    async stop() {
      await runner.stop();
      await utils.release();
    },
  };
}
