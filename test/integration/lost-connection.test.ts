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

it("a transaction whose host falls silent loses its locks, and is told that the database gave it up", async () => {
  const database = postgresDatabase(url, { schema: "countersign" });
  const transaction = database.transaction(async (tx) => {
    const limit = "idle_in_transaction_session_timeout";
    expect(await tx.query({ text: `show ${limit}` })).toEqual([{ [limit]: "15s" }]);
    await tx.query({ text: `set local ${limit} = '50ms'` });
    await tx.query({ text: "select pg_advisory_xact_lock(4711)" });
    // Nothing is said until somebody else has the lock.
    await pool.query("select pg_advisory_xact_lock(4711)");
    await tx.query({ text: "select 1" });
  });
  await expect(transaction).rejects.toMatchObject({ code: "DATABASE_UNAVAILABLE" });
  await database.close();
});

it("leaves no time limit on a connection that goes back to the application's pool", async () => {
  const one = new pg.Pool({ connectionString: url, max: 1 });
  const database = postgresDatabase(one, { schema: "countersign" });
  const limit = { text: "show idle_in_transaction_session_timeout" };
  const before = await database.query(limit);
  const within = await database.transaction((tx) => tx.query(limit));
  expect(await database.query(limit)).toEqual(before);
  expect(within).not.toEqual(before);
  await one.end();
});

it("starts whose commit was answered to nobody are in doubt, not refused as if somebody else had their ids", async () => {
  let answering: Socket | undefined;
  class DeafClient extends pg.Client {
    // biome-ignore lint/suspicious/noExplicitAny: `query` has nine overloads; every call passes through as it came
    override query(...args: any[]): any {
      // biome-ignore lint/suspicious/noExplicitAny: see above
      const sent = (super.query as any)(...args);
      if (answering === undefined && String(args[0]?.text ?? args[0]).includes("insert into countersign.threads")) {
        answering = (this as unknown as { connection: { stream: Socket } }).connection.stream.pause();
      }
      return sent;
    }
  }
  const deaf = new pg.Pool({ connectionString: url, Client: DeafClient });
  deaf.on("error", () => {});
  const graph = graphOf(effect({ execute: async () => ({ ref: "sent" }) }));
  const cs = await countersign({ database: deaf, graphs: [graph], backend: postgres(), onError: () => {} });
  const threadIds = ["deaf-1", "deaf-2"];
  const starts = Promise.allSettled(threadIds.map((threadId) => cs.start(graph, { n: 1 }, { threadId })));
  const recorded = "select from countersign.threads where thread_id = any($1)";
  await expect.poll(async () => (await pool.query(recorded, [threadIds])).rowCount).toBe(2);
  answering?.destroy();

  const codes = (await starts).map((end) => end.status === "rejected" && end.reason.code);
  expect(codes).toEqual(["DATABASE_UNAVAILABLE", "DATABASE_UNAVAILABLE"]);
  await cs.close();
  await deaf.end();
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
