import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it, vi } from "vitest";
import { findCli } from "../../../dev/temporal-server/cli.ts";
import { startServer } from "../../../dev/temporal-server/start.ts";
import { temporal } from "../../../src/backends/temporal/index.ts";
import { countersign } from "../../../src/index.ts";
import { testDatabase } from "../../support/database.ts";
import { effect, graphOf, type TestOutcome, uniqueName } from "../../support/effects.ts";

const { pool } = await testDatabase();
const folder = mkdtempSync(join(tmpdir(), "countersign-temporal-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A server that this test can kill: one at an address would not do. */
function cli(): string {
  const found = findCli();
  if (found === undefined) throw new Error("This test kills its Temporal server: run `npm run temporal:install`.");
  return found;
}

it.each([
  ["keeps its data", join(folder, "temporal.db")],
  ["has lost all of its data", undefined],
])(
  "carries everything out once when Temporal is killed and comes back, and %s",
  async (_what, dbFile) => {
    let server = await startServer(cli(), dbFile === undefined ? {} : { dbFile });
    const errors: unknown[] = [];
    const keys: string[] = [];
    let away = true;
    const graph = graphOf(
      effect({
        retry: { maxAttempts: 1_000, initialIntervalMs: 300, backoff: 1 },
        execute: async (_input, { idempotencyKey }) => {
          if (away) throw new Error("the provider is away");
          keys.push(idempotencyKey);
          return { ref: "r" };
        },
      }),
    );
    await using cs = await countersign({
      ...{ database: pool, graphs: [graph], leaseMs: 1_000 },
      backend: temporal({ address: server.address, taskQueue: uniqueName("queue") }),
      onError: (error) => errors.push(error),
    });
    const stop = new AbortController();
    const working = cs.work({ signal: stop.signal });
    const before = await cs.start(graph, { n: 1 });
    await vi.waitFor(async () => expect((await cs.intents(before.threadId))[0]?.attempt).toBeGreaterThan(1), 20_000);

    await server.stop();
    const meanwhile = await cs.start(graph, { n: 2 });
    await vi.waitFor(() => expect(errors.length).toBeGreaterThan(0), { timeout: 30_000 });
    away = false;
    server = await startServer(cli(), { port: server.port, ...(dbFile === undefined ? {} : { dbFile }) });
    for (const { threadId } of [before, meanwhile]) {
      const { output } = await cs.result<{ outcome: TestOutcome }>(threadId, { signal: AbortSignal.timeout(90_000) });
      expect(output?.outcome).toMatchObject({ status: "succeeded" });
    }
    stop.abort();
    await working;
    await cs.close();
    await server.stop();
    expect(new Set(keys).size).toBe(2);
    expect(keys).toHaveLength(2);
  },
  180_000,
);
