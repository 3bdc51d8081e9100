import { setImmediate } from "node:timers/promises";
import type pg from "pg";
import { afterAll, afterEach, beforeEach, expect, it, vi } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { countersign } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { effect, graphOf, MIA } from "../support/effects.ts";
import { gate } from "../support/gate.ts";
import { oneNode } from "../support/messenger.ts";
import { somebodyWaits } from "../support/somebody-waits.ts";
import { watchedPool } from "../support/watched-pool.ts";

/* Leases are kept alive by heartbeats; one that waits for a lock must not take the pool's connections. */

const LEASE_MS = 3_600_000;
const { pool, url } = await testDatabase();
const { pool: own, statements } = watchedPool(url);
afterAll(() => own.end());

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
});
afterEach(() => {
  vi.useRealTimers();
});

/** How often this was sent, once connections that are free have been given to those who wait for one. */
async function sent(name: string): Promise<number> {
  await setImmediate();
  return statements.filter((statement) => statement.name === `countersign.${name}`).length;
}

/** So many connections are open and free, so that a statement is sent as soon as it is asked for. */
async function connections(count: number): Promise<void> {
  const clients = await Promise.all(Array.from({ length: count }, () => own.connect()));
  for (const client of clients) client.release();
}

async function holding(rows: string): Promise<pg.PoolClient> {
  const holder = await pool.connect();
  await holder.query(`begin; select from countersign.${rows} for no key update`);
  return holder;
}

async function letGo(holder: pg.PoolClient): Promise<void> {
  await holder.query("commit");
  holder.release();
}

const beat = () => vi.advanceTimersByTime(LEASE_MS / 3);

it("renews the leases of threads again only when the last renewal is through", async () => {
  const node = gate();
  const graph = oneNode(async () => {
    await node.pass();
    return {};
  });
  await using cs = await countersign({ database: own, graphs: [graph], backend: postgres(), leaseMs: LEASE_MS });
  const starting = cs.start(graph, { log: [] });
  await node.reached();
  await connections(6);
  const holder = await holding("threads");
  beat();
  await somebodyWaits(pool);
  beat();
  beat();
  expect(await sent("renew_threads")).toBe(1);
  await letGo(holder);
  await vi.waitFor(async () => {
    beat();
    expect(await sent("renew_threads")).toBeGreaterThan(1);
  });
  node.open();
  expect((await starting).status).toBe("completed");
});

it("renews the leases of intents again only when the last renewal is through, or a cancellation is news", async () => {
  const handler = gate();
  const graph = graphOf(
    effect({
      execute: async (_input, { signal }) => {
        signal.addEventListener("abort", () => handler.open());
        await handler.pass();
        signal.throwIfAborted();
        return { ref: "sent" };
      },
    }),
  );
  const options = { graphs: [graph], backend: postgres(), leaseMs: LEASE_MS, pollIntervalMs: LEASE_MS };
  await using cs = await countersign({ database: own, ...options });
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  const { threadId } = await cs.start(graph, { n: 1 });
  await handler.reached();
  await connections(6);
  const holder = await holding(`execution_intents where thread_id = '${threadId}'`);
  beat();
  await somebodyWaits(pool);
  beat();
  beat();
  expect(await sent("renew")).toBe(1);
  const cancelling = cs.cancel(threadId, { by: MIA });
  await letGo(holder);
  await cancelling;
  await handler.opened;
  await vi.waitFor(async () => expect((await cs.intents(threadId))[0]?.status).toBe("cancelled"));
  stop.abort();
  await working;
});
