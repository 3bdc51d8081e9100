import { once } from "node:events";
import type { Socket } from "node:net";
import { setImmediate } from "node:timers/promises";
import pg from "pg";
import { expect, it } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { postgresDatabase } from "../../src/database/postgres.ts";
import { countersign } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { clockOf, effect, graphOf } from "../support/effects.ts";

const { pool, url } = await testDatabase();
const { later } = clockOf(pool);

it("a connection that breaks between two statements fails its transaction, not the process", async () => {
  const database = postgresDatabase(url, { schema: "countersign" });
  const transaction = database.transaction(async (tx) => {
    const [row] = await tx.query<{ pid: number }>({ text: "select pg_backend_pid() as pid" });
    const gone = new pg.Client({ connectionString: url });
    await gone.connect();
    await gone.query("select pg_terminate_backend($1)", [row?.pid]);
    // Until the server has said so, and this process has heard of it, without a query under way.
    await expect
      .poll(async () => (await pool.query("select from pg_stat_activity where pid = $1", [row?.pid])).rowCount)
      .toBe(0);
    await Promise.all([once(gone, "end"), gone.end()]);
    await setImmediate();
    await tx.query({ text: "select 1" });
  });
  await expect(transaction).rejects.toThrow();

  expect(await database.query({ text: "select 1 as one" })).toEqual([{ one: 1 }]);
  await database.close();
});

it("a checkpoint that cannot be read because the connection broke does not fail its thread", async () => {
  let breakNext = false;
  class BreakingClient extends pg.Client {
    // biome-ignore lint/suspicious/noExplicitAny: `query` has nine overloads; every call passes through as it came
    override query(...args: any[]): any {
      const text = String(args[0]?.text ?? args[0]);
      if (breakNext && text.includes("pending_writes")) {
        breakNext = false;
        (this as unknown as { connection: { stream: Socket } }).connection.stream.destroy();
      }
      // biome-ignore lint/suspicious/noExplicitAny: see above
      return (super.query as any)(...args);
    }
  }
  const breaking = new pg.Pool({ connectionString: url, Client: BreakingClient });
  breaking.on("error", () => {});
  const commitment = effect({ execute: async () => ({ ref: "sent" }) });
  const graph = graphOf(commitment);
  const cs = await countersign({ database: breaking, graphs: [graph], backend: postgres(), onError: () => {} });
  const { threadId } = await cs.start(graph, { n: 1 } as never);
  breakNext = true;
  await cs.work({ until: "idle" });
  expect(breakNext).toBe(false);

  await later(60_000);
  await cs.work({ until: "idle" });
  expect((await cs.result(threadId)).status).toBe("completed");
  expect((await cs.audit.list(threadId)).map((row) => row.action)).not.toContain("thread.failed");
  await cs.close();
  await breaking.end();
});
