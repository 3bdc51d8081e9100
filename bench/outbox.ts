import { CountersignSaver } from "countersign/checkpointers";
import type pg from "pg";
import { BareOutbox } from "./bare-outbox.ts";
import { type BenchDatabase, withDatabase } from "./bench-database.ts";
import { launchDbos } from "./dbos.ts";
import { startGraphile } from "./graphile.ts";
import { Countdown, inFlight } from "./in-flight.ts";
import { atLeast, type BenchResult, type Measured, sideBySide } from "./measure.ts";
import { benchWholePath } from "./whole-path.ts";

const IN_FLIGHT = 24;
const INTENTS = 600;
const WORKFLOWS = 200;

/**
 * Intents per second through the outbox: record, claim, handler, settle, each with its audit row, in one
 * process with 24 in flight; and threads per second over the whole path, from a graph to its next node.
 */
export function benchOutbox(): Promise<BenchResult[]> {
  return withDatabase(async (database) => {
    const pool = database.pool();
    await new CountersignSaver(pool).setup();
    const outbox = await BareOutbox.open(pool);
    try {
      return [
        atLeast(0.6, "record → settled, beside graphile-worker", "intents/s", await besideGraphile(outbox, pool)),
        atLeast(
          3,
          "record → settled, beside a one-step DBOS workflow",
          "intents/s",
          await besideDbos(outbox, database),
        ),
        atLeast(1, "commit → delivered, beside interrupt and resume", "threads/s", await benchWholePath(database)),
      ];
    } finally {
      await outbox.close();
    }
  });
}

async function besideGraphile(outbox: BareOutbox, pool: pg.Pool): Promise<Measured> {
  const graphile = await startGraphile(pool, IN_FLIGHT, () => {});
  let countdown = new Countdown(1);
  graphile.runner.events.on("job:complete", () => countdown.count());
  try {
    return await sideBySide({
      rounds: 11,
      budgetMs: 9_000,
      ours: () => intentsPerSecond(outbox, INTENTS),
      peer: () =>
        perSecond(INTENTS, async () => {
          countdown = new Countdown(INTENTS);
          await inFlight(IN_FLIGHT, INTENTS, () => graphile.addJob("effect", { n: 1 }));
          await countdown.done;
        }),
    });
  } finally {
    await graphile.stop();
  }
}

async function besideDbos(outbox: BareOutbox, { url }: BenchDatabase): Promise<Measured> {
  const dbos = await launchDbos(url);
  try {
    return await sideBySide({
      rounds: 11,
      budgetMs: 9_000,
      ours: () => intentsPerSecond(outbox, INTENTS),
      peer: () => perSecond(WORKFLOWS, () => inFlight(IN_FLIGHT, WORKFLOWS, dbos.run)),
    });
  } finally {
    await dbos.stop();
  }
}

/** Each intent on a thread of its own, so each with an audit chain of its own: that is the dearest case. */
async function intentsPerSecond(outbox: BareOutbox, count: number): Promise<number> {
  const threads = await outbox.threads(count);
  const carriedOut = new Countdown(count);
  const worker = outbox.work(IN_FLIGHT, () => carriedOut.count());
  return perSecond(count, async () => {
    await inFlight(IN_FLIGHT, count, (index) => outbox.record(threads[index] as string));
    await carriedOut.done;
    await worker.stop();
  });
}

async function perSecond(count: number, work: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await work();
  return (count * 1_000) / (performance.now() - start);
}
