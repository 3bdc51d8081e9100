import { afterEach, expect, it } from "vitest";
import { createTemporalWorker, temporal } from "../../../src/backends/temporal/index.ts";
import { type AnyGraph, countersign } from "../../../src/index.ts";
import { testDatabase } from "../../support/database.ts";
import { effect, graphOf, MIA, type TestOutcome, uniqueName } from "../../support/effects.ts";
import { gate } from "../../support/gate.ts";
import { testTemporal } from "../../support/temporal.ts";

const { pool, url } = await testDatabase();
const { address } = await testTemporal();

const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));
const onError = (error: unknown) => errors.push(error);

const relaying = (graphs: AnyGraph[], taskQueue: string) =>
  countersign({ database: pool, graphs, backend: temporal({ address, taskQueue, worker: false }), onError });

it("carries out in a worker of its own what a process without one hands over", async () => {
  const taskQueue = uniqueName("queue");
  const send = effect({ execute: async () => ({ ref: "r" }) });
  const graph = graphOf(send);
  await using cs = await relaying([graph], taskQueue);
  await using worker = await createTemporalWorker({ database: url, commitments: [send], address, taskQueue, onError });
  const { threadId } = await cs.start(graph, { n: 1 });
  const stop = new AbortController();
  const both = Promise.all([cs.work({ signal: stop.signal }), worker.run({ signal: stop.signal })]);
  const { output } = await cs.result<{ outcome: TestOutcome }>(threadId);
  stop.abort();
  await both;
  expect(output?.outcome).toMatchObject({ status: "succeeded" });
  const [intent] = await cs.intents(threadId);
  const [own] = (await cs.audit.list(threadId)).filter(({ action }) => action === "intent.recorded");
  expect(intent?.committedBy).not.toBe(own?.actorId);
});

it("hands over without a worker in sight, and does not wait for one", async () => {
  const graph = graphOf(effect({ execute: async () => ({ ref: "r" }) }));
  await using cs = await relaying([graph], uniqueName("queue"));
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  expect((await cs.intents(threadId))[0]).toMatchObject({ status: "runnable", attempt: 0 });
});

it("lets a worker finish what it has begun when it closes", async () => {
  const taskQueue = uniqueName("queue");
  const held = gate();
  const send = effect({ execute: () => held.pass().then(() => ({ ref: "r" })) });
  const graph = graphOf(send);
  await using cs = await relaying([graph], taskQueue);
  const worker = await createTemporalWorker({ database: pool, commitments: [send], address, taskQueue, onError });
  const { threadId } = await cs.start(graph, { n: 1 });
  const stop = new AbortController();
  const work = cs.work({ signal: stop.signal });
  const running = worker.run();
  await held.reached();
  const closing = worker.close();
  held.open();
  await Promise.all([closing, running]);
  expect((await cs.result<{ outcome: TestOutcome }>(threadId)).output?.outcome).toMatchObject({ status: "succeeded" });
  stop.abort();
  await work;
});

it("stops a handler in another process's worker when its intent is cancelled", async () => {
  const taskQueue = uniqueName("queue");
  const called = gate();
  const send = effect({
    execute: (_input, { signal }) => {
      void called.pass();
      return new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(new Error("stopped"))));
    },
  });
  const graph = graphOf(send);
  await using cs = await relaying([graph], taskQueue);
  await using worker = await createTemporalWorker({ database: url, commitments: [send], address, taskQueue, onError });
  const { threadId } = await cs.start(graph, { n: 1 });
  const stop = new AbortController();
  const both = Promise.all([cs.work({ signal: stop.signal }), worker.run({ signal: stop.signal })]);
  await called.reached();
  const [intent] = await cs.intents(threadId);
  await cs.cancelIntent(intent?.id ?? "", { by: MIA });
  expect((await cs.result<{ outcome: TestOutcome }>(threadId)).output?.outcome).toMatchObject({ status: "cancelled" });
  stop.abort();
  await both;
});

it.each([
  [{ commitments: [] }],
  [{ leaseMs: 1 }],
  [{ concurrency: 0 }],
  [{ taskQueue: "" }],
  [{ deployment: { name: "", buildId: "1" } }],
  [{ taskqueue: "typo" }],
])("refuses options that make no sense: %j", async (changes) => {
  const commitments = [effect({ execute: async () => ({ ref: "r" }) })];
  const options = { database: pool, commitments, address, onError, ...changes };
  await expect(createTemporalWorker(options as never)).rejects.toMatchObject({ code: "OPTION_INVALID" });
});
