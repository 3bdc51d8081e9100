import pg from "pg";
import { afterAll, expect, it } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { type CountersignOptions, countersign } from "../../src/index.ts";
import { effect, graphOf, MIA, NEEDS_MANAGER } from "../support/effects.ts";
import { gate } from "../support/gate.ts";
import { ownServer } from "../support/own-server.ts";
import { onlyOne } from "../support/requests.ts";

const server = await ownServer();
afterAll(() => server[Symbol.asyncDispose]());

const AWAY = { code: "DATABASE_UNAVAILABLE" };
const open = (graphs: CountersignOptions["graphs"], options: Partial<CountersignOptions> = {}) =>
  countersign({ database: server.url, graphs, backend: postgres(), pollIntervalMs: 50, onError: () => {}, ...options });

it("a database that is down at the start is an error of ours, and a later start finds everything as it should be", async () => {
  const graph = graphOf(effect({ execute: async () => ({ ref: "sent" }) }));
  await server.stop();
  await expect(open([graph])).rejects.toMatchObject(AWAY);
  await server.start();
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  expect((await cs.result(threadId)).status).toBe("completed");
});

it("while it is away every call says so, and a process that works goes on by itself when it is back", async () => {
  const calls: string[] = [];
  const send = effect({
    ...NEEDS_MANAGER,
    execute: async (_input, { idempotencyKey }) => {
      calls.push(idempotencyKey);
      return { ref: "sent" };
    },
  });
  const graph = graphOf(send);
  const heard: unknown[] = [];
  const onError = (error: unknown): void => {
    heard.push(error);
  };
  await using cs = await open([graph], { onError });
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  const { threadId, pending } = await cs.start(graph, { n: 1 });
  const { id, digest } = onlyOne(pending);

  await server.stop();
  await expect(cs.approve(id, { by: MIA, digest })).rejects.toMatchObject(AWAY);
  await expect(cs.pending()).rejects.toMatchObject(AWAY);
  await expect(cs.start(graph, { n: 2 })).rejects.toMatchObject(AWAY);
  await expect(cs.result(threadId)).rejects.toMatchObject(AWAY);
  // It works, and hears that there is nothing to work on.
  await expect.poll(() => heard.length).toBeGreaterThan(3);
  for (const error of heard) expect(error).toMatchObject(AWAY);

  await server.start();
  await cs.approve(id, { by: MIA, digest });
  expect(await cs.result(threadId)).toMatchObject({ output: { outcome: { status: "succeeded" } } });
  expect(calls).toEqual([id]);
  expect(await cs.pending()).toEqual([]);
  stop.abort();
  await working;
});

it("an effect that is done while it is away is recorded when it is back, and not done again", async () => {
  const atProvider = gate();
  let calls = 0;
  const send = effect({
    semantics: "at-most-once",
    execute: async () => {
      calls++;
      await atProvider.pass();
      return { ref: "done meanwhile" };
    },
  });
  const graph = graphOf(send);
  await using cs = await open([graph]);
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  const { threadId } = await cs.start(graph, { n: 1 });
  await atProvider.reached();
  await server.stop();
  atProvider.open();
  await server.start();
  expect(await cs.result(threadId)).toMatchObject({
    output: { outcome: { status: "succeeded", output: { ref: "done meanwhile" } } },
  });
  expect(calls).toBe(1);
  stop.abort();
  await working;
});

it("a start whose database goes away before it is answered has begun whole or not at all", async () => {
  const graph = graphOf(effect({ execute: async () => ({ ref: "sent" }) }));
  await using cs = await open([graph]);
  const ids = Array.from({ length: 40 }, (_, n) => `torn-${n}`);
  const starts = Promise.allSettled(ids.map((threadId) => cs.start(graph, { n: 1 }, { threadId })));
  await server.stop();
  for (const start of await starts) {
    if (start.status === "rejected") expect(start.reason).toMatchObject(AWAY);
  }
  await server.start();

  const check = new pg.Client({ connectionString: server.url });
  await check.connect();
  // Who began goes on from there: a thread without its input, or an intent without its thread, there is none.
  const { rows } = await check.query<{ thread_id: string }>(
    "select thread_id from countersign.threads where thread_id like 'torn-%'",
  );
  await check.query(
    "update countersign.threads set lease_expires_at = now() - interval '1 s' where status = 'running'",
  );
  await check.end();
  await cs.work({ until: "idle" });
  for (const { thread_id } of rows) expect((await cs.result(thread_id)).status).toBe("completed");
  expect(await cs.audit.verify()).toEqual([]);
});
