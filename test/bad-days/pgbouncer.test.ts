import { afterAll, expect, it } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { type CountersignOptions, countersign } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { effect, graphOf, MIA, manyOf, NEEDS_MANAGER } from "../support/effects.ts";
import { bouncer } from "../support/own-server.ts";
import { onlyOne } from "../support/requests.ts";

/*
 * Behind pgbouncer in transaction mode a connection belongs to somebody else after each transaction:
 * no named prepared statement survives, and no notification comes through.
 */

const { url, pool } = await testDatabase();
const pooled = await bouncer(url);
afterAll(() => pooled[Symbol.asyncDispose]());

const errors: unknown[] = [];
const open = (graphs: CountersignOptions["graphs"], options: Partial<CountersignOptions> = {}) =>
  countersign({
    database: pooled.url,
    prepare: false,
    graphs,
    backend: postgres(),
    onError: (error) => errors.push(error),
    ...options,
  });

it("a whole life goes through it without prepared statements, and polling alone carries the work", async () => {
  const send = effect({ ...NEEDS_MANAGER, execute: async () => ({ ref: "sent" }) });
  const graph = graphOf(send);
  await using cs = await open([graph], { pollIntervalMs: 20 });
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  const { threadId, pending } = await cs.start(graph, { n: 1 });
  const { id, digest } = onlyOne(pending);
  await cs.approve(id, { by: MIA, digest });
  expect(await cs.result(threadId)).toMatchObject({ output: { outcome: { status: "succeeded" } } });
  stop.abort();
  await working;
  expect(await cs.audit.verify()).toEqual([]);
  expect(errors).toEqual([]);
});

it("many connections share a few of the server's, and nothing is lost or done twice", async () => {
  const called: number[] = [];
  const send = effect({
    execute: async ({ n }) => {
      called.push(n);
      return { ref: "sent" };
    },
  });
  const graph = manyOf(send);
  await using first = await open([graph], { pollIntervalMs: 20 });
  await using second = await open([graph], { pollIntervalMs: 20 });
  const threads = await Promise.all([1, 2, 3, 4].map(() => first.start(graph, { count: 10 })));
  const stop = new AbortController();
  const working = [first.work({ signal: stop.signal }), second.work({ signal: stop.signal })];
  await Promise.all(threads.map(({ threadId }) => second.result(threadId)));
  stop.abort();
  await Promise.all(working);
  expect(called).toHaveLength(40);
  expect(errors).toEqual([]);
});

it("with listenUrl, straight to the server, it wakes at once, however seldom it polls", async () => {
  const send = effect({ execute: async () => ({ ref: "sent" }) });
  const graph = graphOf(send);
  await using working = await open([graph], { pollIntervalMs: 3_600_000, listenUrl: url });
  await using starting = await open([graph], { listenUrl: url });
  const stop = new AbortController();
  const done = working.work({ signal: stop.signal });
  const { threadId } = await starting.start(graph, { n: 1 });
  expect((await working.result(threadId)).status).toBe("completed");
  stop.abort();
  await done;
  expect(errors).toEqual([]);
});

it("prepared statements do fail there: that is what the option is for", async () => {
  const graph = graphOf(effect({ execute: async () => ({ ref: "sent" }) }));
  const heard: unknown[] = [];
  const life = async (): Promise<void> => {
    await using cs = await open([graph], { prepare: true, onError: (error) => heard.push(error) });
    for (let n = 0; n < 5; n++) await cs.start(graph, { n });
    await cs.work({ until: "idle" });
  };
  // Side by side, so that a connection of one meets what another has prepared.
  await Promise.all(Array.from({ length: 4 }, () => life().catch((error) => heard.push(error))));
  expect(heard.map(String).join()).toMatch(/prepared statement/);
  expect((await pool.query("select 1 as one")).rows).toEqual([{ one: 1 }]);
});
