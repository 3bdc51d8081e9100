import { afterAll, beforeAll, expect, it } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { type Countersign, countersign } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { effect, graphOf, MIA, manyOf, NEEDS_MANAGER } from "../support/effects.ts";
import { watchedPool } from "../support/watched-pool.ts";

/* What is asked of the database, and how often: the promises here are about not asking. */

const { url } = await testDatabase();
const { pool, statements } = watchedPool(url);
const free = graphOf(effect({ execute: async () => ({ ref: "r" }) }));
const many = manyOf(effect({ execute: async () => ({ ref: "r" }) }));
const gated = graphOf(effect({ ...NEEDS_MANAGER, execute: async () => ({ ref: "r" }) }));
const stop = new AbortController();
let cs: Countersign;
let working: Promise<void>;

beforeAll(async () => {
  // Polling so seldom that whatever is asked here is asked because of a notification.
  const graphs = [free, many, gated];
  cs = await countersign({ database: pool, graphs, backend: postgres(), pollIntervalMs: 3_600_000 });
  working = cs.work({ signal: stop.signal });
});

afterAll(async () => {
  stop.abort();
  await working;
  await cs.close();
  await pool.end();
});

/** What was sent under a name since `mark()`. */
function counter() {
  const from = statements.length;
  return (name: string): number => statements.slice(from).filter((sent) => sent.name === `countersign.${name}`).length;
}

const startMany = (graph: typeof free, count: number) =>
  Promise.all(Array.from({ length: count }, () => cs.start(graph, { n: 1 } as never)));

it("asks once for all who wait for the ends of their threads, however many those are", async () => {
  const runs = await startMany(gated, 20);
  const results = Promise.all(runs.map(({ threadId }) => cs.result(threadId)));
  const sent = counter();

  const { threadId } = await cs.start(free, { n: 1 } as never);
  await cs.result(threadId);
  expect(sent("thread_ends")).toBeLessThan(10);

  for (const intent of await cs.pending()) await cs.approve(intent.id, { by: MIA, digest: intent.digest });
  expect((await results).map(({ status }) => status)).toEqual(Array(20).fill("completed"));
});

it("looks for lost leases now and then, and not in every round of work", async () => {
  const sent = counter();

  const { threadId } = await cs.start(many, { count: 100 } as never);
  await cs.result(threadId);

  expect(sent("claim")).toBeGreaterThan(3);
  expect(sent("rescue")).toBeLessThan(2);
});

it("sweeps when there is a deadline, a timer or something to undo, and not at every change", async () => {
  const sent = counter();

  const runs = await startMany(free, 10);
  await Promise.all(runs.map(({ threadId }) => cs.result(threadId)));

  expect(sent("next_due") + sent("any_overdue") + sent("end_timers")).toBe(0);
});

it("lets go of threads together", async () => {
  const sent = counter();

  const runs = await startMany(free, 30);
  await Promise.all(runs.map(({ threadId }) => cs.result(threadId)));

  expect(sent("release_threads")).toBeGreaterThan(0);
  expect(sent("release_threads")).toBeLessThan(40);
});

it("says how a thread stands that waits for nobody, or that has ended, without asking again", async () => {
  const sent = counter();

  const run = await cs.start(many, { count: 0 } as never);

  expect(run).toMatchObject({ status: "completed", output: { count: 0, outcomes: [] }, pending: [], error: null });
  expect(sent("thread")).toBe(0);
});

it("warns of no leak when many wait for one handle", async () => {
  const warnings: Error[] = [];
  const note = (warning: Error): number => warnings.push(warning);
  process.on("warning", note);

  const runs = await startMany(free, 30);
  await Promise.all(runs.map(({ threadId }) => cs.result(threadId)));

  process.off("warning", note);
  expect(warnings.filter(({ name }) => name === "MaxListenersExceededWarning")).toEqual([]);
});
