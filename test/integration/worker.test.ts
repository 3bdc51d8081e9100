import { afterEach, expect, it, vi } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { type AnyGraph, type CountersignOptions, countersign, NonRetryableError } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import {
  clockOf,
  effect,
  graphOf,
  MIA,
  manyOf,
  NEEDS_MANAGER,
  PAST_LEASE_MS,
  type TestOutcome,
} from "../support/effects.ts";
import { type Gate, gate } from "../support/gate.ts";
import { watchedPool } from "../support/watched-pool.ts";

const { pool, url } = await testDatabase();
const { later } = clockOf(pool);

/** What no caller was told of. A test that expects some takes them out. */
const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));

const open = (graphs: AnyGraph[], options: Partial<CountersignOptions> = {}) =>
  countersign({ database: pool, graphs, backend: postgres(), onError: (error) => errors.push(error), ...options });

async function only<Item>(items: Promise<readonly Item[]>): Promise<Item> {
  const [item, ...others] = await items;
  if (item === undefined || others.length > 0) throw new Error("not exactly one");
  return item;
}

it("commits its claim before it calls the handler", async () => {
  let seen: unknown;
  const look = effect({
    execute: async (_input, { intentId }) => {
      const { rows } = await pool.query(
        "select status, attempt, lease_owner is not null as leased from countersign.execution_intents where id = $1",
        [intentId],
      );
      seen = rows[0];
      return { ref: "r" };
    },
  });
  const graph = graphOf(look);
  await using cs = await open([graph]);
  await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  expect(seen).toEqual({ status: "dispatched", attempt: 1, leased: true });
});

it("tries a failing handler again, later each time and under the same key, until it succeeds", async () => {
  const calls: { key: string; attempt: number }[] = [];
  const flaky = effect({
    retry: { maxAttempts: 5, initialIntervalMs: 60_000, backoff: 10, maxIntervalMs: 3_600_000 },
    execute: async (_input, { idempotencyKey, attempt }) => {
      calls.push({ key: idempotencyKey, attempt });
      if (calls.length < 3) throw new Error("the provider is away");
      return { ref: "third time" };
    },
  });
  const graph = graphOf(flaky);
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  const delays: number[] = [];
  for (const waitMs of [60_000, 600_000]) {
    await cs.work({ until: "idle" });
    await cs.work({ until: "idle" });
    const intent = await only(cs.intents(threadId));
    expect(intent).toMatchObject({ status: "runnable", error: { message: "the provider is away" } });
    delays.push(intent.notBefore.getTime() - intent.updatedAt.getTime());
    await later(waitMs);
  }
  await cs.work({ until: "idle" });

  const { id: key } = await only(cs.intents(threadId));
  expect(calls).toEqual([1, 2, 3].map((attempt) => ({ key, attempt })));
  expect(delays[0]).toBeGreaterThanOrEqual(30_000);
  expect(delays[0]).toBeLessThanOrEqual(60_000);
  expect(delays[1]).toBeGreaterThanOrEqual(300_000);
  expect(delays[1]).toBeLessThanOrEqual(600_000);
  const { output } = await cs.result<{ outcome: TestOutcome }>(threadId);
  expect(output?.outcome).toMatchObject({ status: "succeeded", output: { ref: "third time" } });
});

it("keeps an intent whose attempts are spent as a dead letter that a replay runs again under its key", async () => {
  const keys: string[] = [];
  let providerIsBack = false;
  const flaky = effect({
    retry: { maxAttempts: 2, initialIntervalMs: 0 },
    execute: async (_input, { idempotencyKey }) => {
      keys.push(idempotencyKey);
      if (!providerIsBack) throw new Error("away");
      return { ref: "r" };
    },
  });
  const graph = graphOf(flaky);
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  const { output } = await cs.result<{ outcome: TestOutcome }>(threadId);
  expect(output?.outcome).toMatchObject({ status: "failed", error: { code: "Error", message: "away" } });
  const letter = await only(cs.intents(threadId));
  expect(letter).toMatchObject({ status: "failed", attempt: 2 });

  providerIsBack = true;
  await cs.replay(letter.id, { by: MIA });
  await cs.work({ until: "idle" });
  expect(await cs.intent(letter.id)).toMatchObject({ status: "succeeded", attempt: 1, output: { ref: "r" } });
  expect(keys).toEqual([letter.id, letter.id, letter.id]);
  expect((await cs.audit.list(threadId)).map((row) => row.action)).toEqual([
    "thread.started",
    "intent.recorded",
    ...["intent.claimed", "intent.attempted", "intent.claimed", "intent.failed"],
    "thread.completed",
    ...["intent.replayed", "intent.claimed", "intent.succeeded"],
  ]);
});

it("refuses to replay what has not failed", async () => {
  const fine = effect({ execute: async () => ({ ref: "r" }) });
  const graph = graphOf(fine);
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  const { id } = await only(cs.intents(threadId));
  await expect(cs.replay(id, { by: MIA })).rejects.toMatchObject({ code: "INTENT_STATE" });
});

it("ends an intent at once when its handler says that a retry cannot help", async () => {
  let calls = 0;
  const refused = effect({
    execute: async () => {
      calls++;
      throw new NonRetryableError("The account is closed");
    },
  });
  const graph = graphOf(refused);
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  await later(PAST_LEASE_MS);
  await cs.work({ until: "idle" });
  expect(calls).toBe(1);
  const error = { code: "NON_RETRYABLE", message: "The account is closed" };
  expect(await only(cs.intents(threadId))).toMatchObject({ status: "failed", attempt: 1, error });
});

it("aborts the signal of a handler that takes too long, and counts that as an attempt", async () => {
  const reasons: unknown[] = [];
  const slow = effect({
    timeoutMs: 20,
    retry: { maxAttempts: 2, initialIntervalMs: 0 },
    execute: (_input, { signal }) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => {
          reasons.push(signal.reason);
          reject(signal.reason);
        });
      }),
  });
  const graph = graphOf(slow);
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  expect(reasons).toMatchObject([{ code: "HANDLER_TIMEOUT" }, { code: "HANDLER_TIMEOUT" }]);
  expect(await only(cs.intents(threadId))).toMatchObject({
    status: "failed",
    attempt: 2,
    error: { code: "HANDLER_TIMEOUT" },
  });
});

it("leaves a handler behind that ignores its signal: its late answer counts for nothing", async () => {
  const held = gate();
  const answered: Promise<unknown>[] = [];
  const deaf = effect({
    timeoutMs: 20,
    retry: { initialIntervalMs: 60_000 },
    execute: (_input, { attempt }) => {
      const answer = attempt === 1 ? held.pass().then(() => ({ ref: "late" })) : Promise.resolve({ ref: "second" });
      answered.push(answer);
      return answer;
    },
  });
  const graph = graphOf(deaf);
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  held.open();
  await answered[0];
  await cs.work({ until: "idle" });
  expect(await only(cs.intents(threadId))).toMatchObject({ status: "runnable", output: null });
  await later(60_000);
  await cs.work({ until: "idle" });
  expect(await only(cs.intents(threadId))).toMatchObject({ status: "succeeded", output: { ref: "second" } });
});

it("gives a handler all the time of a time-out that is longer than a timer can count", async () => {
  const patient = effect({ timeoutMs: 30 * 24 * 3_600_000, execute: async (_input, { signal }) => answer(signal) });
  const answer = async (signal: AbortSignal) => {
    for (let i = 0; i < 20; i++) await pool.query("select 1");
    signal.throwIfAborted();
    return { ref: "r" };
  };
  const graph = graphOf(patient);
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  expect(await only(cs.intents(threadId))).toMatchObject({ status: "succeeded", error: null });
});

it.each([
  ["a text", "no", { code: "NON_ERROR_THROWN", message: "The handler threw a string" }],
  ["nothing", undefined, { code: "NON_ERROR_THROWN" }],
  ["null", null, { code: "NON_ERROR_THROWN" }],
  ["an error with a code", Object.assign(new Error("no route"), { code: "ECONNRESET" }), { code: "ECONNRESET" }],
  ["an error with NUL and half a character", new Error("a\u0000b\ud800"), { code: "Error", message: "ab\ufffd" }],
  ["an error whose message is no text", Object.assign(new Error(), { message: { deep: 1 } }), { code: "Error" }],
])("records a failure when a handler throws %s", async (_what, thrown, error) => {
  const odd = effect({
    retry: { maxAttempts: 1 },
    execute: () => {
      throw thrown;
    },
  });
  const graph = graphOf(odd);
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  expect(await only(cs.intents(threadId))).toMatchObject({ status: "failed", error });
});

it("fails, and does not send again, what was answered in a way that the output schema refuses", async () => {
  let calls = 0;
  const garbled = effect({
    execute: async () => {
      calls++;
      return { ref: 7, secret: "iban" } as never;
    },
  });
  const graph = graphOf(garbled);
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  await later(PAST_LEASE_MS);
  await cs.work({ until: "idle" });
  expect(calls).toBe(1);
  const intent = await only(cs.intents(threadId));
  expect(intent).toMatchObject({ status: "failed", output: null, error: { code: "OUTPUT_INVALID" } });
  expect(JSON.stringify(intent.error)).not.toContain("iban");
});

it("does not run a payload that was changed after its approval", async () => {
  let calls = 0;
  const send = effect({
    ...NEEDS_MANAGER,
    execute: async () => {
      calls++;
      return { ref: "r" };
    },
  });
  const graph = graphOf(send);
  await using cs = await open([graph]);
  const run = await cs.start(graph, { n: 1 });
  const intent = await only(cs.pending({ threadId: run.threadId }));
  await cs.approve(intent.id, { by: MIA, digest: intent.digest });
  await pool.query("alter table countersign.execution_intents disable trigger user");
  await pool.query(`update countersign.execution_intents set payload = '{"n":1000000}' where id = $1`, [intent.id]);
  await pool.query("alter table countersign.execution_intents enable trigger user");
  await cs.work({ until: "idle" });

  expect(calls).toBe(0);
  expect(await cs.intent(intent.id)).toMatchObject({ status: "failed", error: { code: "INTENT_DIGEST_MISMATCH" } });
  const refusal = (await cs.audit.list(run.threadId)).find((row) => row.action === "intent.failed");
  expect(refusal).toMatchObject({ intentId: intent.id, reasonCode: "digest_mismatch" });
});

it.each([
  ["the commitment's maxConcurrency", { maxConcurrency: 2 }, 24],
  ["the worker's concurrency", {}, 2],
])("runs no more handlers at once than %s, and goes on as they end", async (_what, declared, concurrency) => {
  let atOnce = 0;
  let most = 0;
  const two = gate();
  const limited = effect({
    ...declared,
    execute: async () => {
      atOnce++;
      most = Math.max(most, atOnce);
      if (atOnce === 2) two.open();
      await two.opened;
      await pool.query("select 1");
      atOnce--;
      return { ref: "r" };
    },
  });
  const graph = manyOf(limited);
  await using cs = await open([graph], { backend: postgres({ concurrency }), pollIntervalMs: 60_000 });
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  const { threadId } = await cs.start(graph, { count: 7 });
  const { output } = await cs.result<{ outcomes: TestOutcome[] }>(threadId);
  stop.abort();
  await working;
  expect(output?.outcomes.map((outcome) => outcome.status)).toEqual(Array(7).fill("succeeded"));
  expect(most).toBe(2);
});

it("leaves the database alone while all slots of a commitment are taken", async () => {
  const held = gate();
  const limited = effect({ maxConcurrency: 1, execute: () => held.pass().then(() => ({ ref: "r" })) });
  const graph = manyOf(limited);
  const watched = watchedPool(url);
  const cs = await open([graph], { database: watched.pool, pollIntervalMs: 60_000 });
  const { threadId } = await cs.start(graph, { count: 3 });
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  await held.reached();
  const before = watched.statements.length;
  for (let i = 0; i < 300; i++) await pool.query("select 1");
  expect(watched.statements.length - before).toBeLessThan(10);

  held.open();
  await cs.result(threadId);
  stop.abort();
  await working;
  await cs.close();
  await watched.pool.end();
});

it("shares 50 intents among three processes, each carried out once", async () => {
  const keys: string[] = [];
  const all = gate();
  const taking = new Set<string>();
  const handlerOf =
    (name: string) =>
    async (_input: unknown, { idempotencyKey }: { idempotencyKey: string }) => {
      keys.push(idempotencyKey);
      // Nobody finishes before all three have begun, so that all three take part.
      if (taking.add(name).size === 3) all.open();
      await all.opened;
      return { ref: name };
    };
  const [first, ...others] = ["one", "two", "three"].map((name) =>
    manyOf(effect({ name: "shared", execute: handlerOf(name) }), "sharing"),
  );
  if (first === undefined) throw new Error("unreachable");
  const backend = postgres({ concurrency: 5 });
  await using one = await open([first], { backend });
  await using two = await open(others.slice(0, 1), { backend });
  await using three = await open(others.slice(1), { backend });
  const { threadId } = await one.start(first, { count: 50 });
  await Promise.all([one, two, three].map((cs) => cs.work({ until: "idle" })));

  const intents = await one.intents(threadId);
  expect(intents.map((intent) => intent.status)).toEqual(Array(50).fill("succeeded"));
  expect(intents.map((intent) => intent.attempt)).toEqual(Array(50).fill(1));
  expect(keys.sort()).toEqual(intents.map((intent) => intent.id).sort());
  expect(new Set(intents.map((intent) => intent.committedBy)).size).toBe(3);
});

it("leaves alone what another worker is running", async () => {
  let calls = 0;
  const held = gate();
  const slow = effect({
    execute: async () => {
      calls++;
      await held.pass();
      return { ref: "r" };
    },
  });
  const graph = graphOf(slow);
  await using one = await open([graph]);
  await using two = await open([graph]);
  const { threadId } = await one.start(graph, { n: 1 });
  const working = one.work({ until: "idle" });
  await held.reached();
  await two.work({ until: "idle" });
  held.open();
  await working;
  expect(calls).toBe(1);
  expect((await one.result(threadId)).status).toBe("completed");
});

it("keeps the lease of a handler that runs for longer than a lease lasts", async () => {
  const held = gate();
  const slow = effect({ execute: () => held.pass().then(() => ({ ref: "r" })) });
  const graph = graphOf(slow);
  await using cs = await open([graph], { leaseMs: 150 });
  const { threadId } = await cs.start(graph, { n: 1 });
  const working = cs.work({ until: "idle" });
  await held.reached();
  const first = (await only(cs.intents(threadId))).leaseExpiresAt as Date;
  await vi.waitFor(async () => {
    const { leaseExpiresAt } = await only(cs.intents(threadId));
    expect(leaseExpiresAt?.getTime()).toBeGreaterThan(first.getTime() + 150);
  });
  held.open();
  await working;
  expect(await only(cs.intents(threadId))).toMatchObject({ status: "succeeded", attempt: 1 });
});

it("aborts the signal of a handler whose lease another worker has taken over", async () => {
  const held = gate();
  let reason: unknown;
  const slow = effect({
    execute: async (_input, { signal, attempt }) => {
      if (attempt > 1) return { ref: "second" };
      signal.addEventListener("abort", () => {
        reason = signal.reason;
      });
      await held.pass();
      return { ref: "late" };
    },
  });
  const graph = graphOf(slow);
  await using one = await open([graph], { leaseMs: 300 });
  await using two = await open([graph]);
  const { threadId } = await one.start(graph, { n: 1 });
  const working = one.work({ until: "idle" });
  await held.reached();
  await later(PAST_LEASE_MS);
  await two.work({ until: "idle" });
  await vi.waitFor(() => expect(reason).toMatchObject({ code: "LEASE_LOST" }));
  held.open();
  await working;
  expect(await only(two.intents(threadId))).toMatchObject({ status: "succeeded", output: { ref: "second" } });
});

/** An effect whose test waits for its call. */
function noting(called: Gate) {
  return effect({
    execute: async () => {
      void called.pass();
      return { ref: "r" };
    },
  });
}

/** Long enough for somebody who does not wait to be seen not to. */
async function aWhile(): Promise<void> {
  for (let i = 0; i < 30; i++) await pool.query("select 1");
}

it("tells a handler when its own process takes its intent over, and keeps sight of the new one when it ends", async () => {
  const [zombie, second, ended] = [gate(), gate(), gate()];
  let zombieSignal: AbortSignal | undefined;
  const graph = graphOf(
    effect({
      execute: async (_input, { attempt, signal }) => {
        zombieSignal ??= signal;
        await (attempt === 1 ? zombie : second).pass();
        await aWhile();
        void ended.pass();
        return { ref: `attempt ${attempt}` };
      },
    }),
  );
  const cs = await open([graph], { pollIntervalMs: 20 });
  await using other = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  const working = cs.work();
  await zombie.reached();
  // As after a long pause of the process: it takes its own intent over.
  await later(PAST_LEASE_MS);
  await second.reached();
  expect(zombieSignal?.reason).toMatchObject({ code: "LEASE_LOST" });
  zombie.open();
  await ended.reached();
  await aWhile();
  const closing = cs.close();
  second.open();
  await closing;
  expect(await only(other.intents(threadId))).toMatchObject({ status: "succeeded", output: { ref: "attempt 2" } });
  await working;
  for (const error of errors.splice(0)) expect(error).toMatchObject({ code: "LEASE_LOST" });
});

it("closes at once, and leaves to its lease what was cancelled and does not listen", async () => {
  const running = gate();
  const told = gate();
  const deaf = effect({
    timeoutMs: 3_600_000,
    execute: async (_input, { signal }) => {
      signal.addEventListener("abort", () => void told.pass());
      await running.pass();
      return { ref: "late" };
    },
  });
  const graph = graphOf(deaf);
  const cs = await open([graph]);
  await using other = await open([graph]);
  const working = cs.work({ signal: new AbortController().signal });
  const { threadId } = await cs.start(graph, { n: 1 });
  await running.reached();
  await other.cancel(threadId, { by: MIA });
  await told.reached();

  await cs.close({ timeoutMs: 0 });
  await working;
  expect(await only(other.intents(threadId))).toMatchObject({ status: "dispatched", attempt: 1 });

  await later(PAST_LEASE_MS);
  await other.work({ until: "idle" });
  expect(await only(other.intents(threadId))).toMatchObject({ status: "cancelled", attempt: 1 });
});

it("wakes a working process by notification, however seldom it polls", async () => {
  const called = gate();
  const fine = noting(called);
  const graph = graphOf(fine);
  await using worker = await open([graph], { pollIntervalMs: 60_000 });
  await using other = await open([graph]);
  const stop = new AbortController();
  const working = worker.work({ signal: stop.signal });
  for (let n = 1; n <= 3; n++) {
    await other.start(graph, { n });
    await called.reached(n);
  }
  stop.abort();
  await working;
});

it("tries again when a retry falls due, however seldom it polls", async () => {
  const flaky = effect({
    retry: { initialIntervalMs: 20 },
    execute: async (_input, { attempt }) => {
      if (attempt < 3) throw new Error("away");
      return { ref: "r" };
    },
  });
  const graph = graphOf(flaky);
  await using cs = await open([graph], { pollIntervalMs: 60_000 });
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.result(threadId);
  stop.abort();
  await working;
});

const LISTENERS = `from pg_stat_activity where datname = current_database() and query like 'listen %'`;

it("works by polling alone while its LISTEN connection is gone", async () => {
  let listeners: unknown;
  const called = gate();
  const fine = effect({
    execute: async () => {
      listeners = (await pool.query(`select pid ${LISTENERS}`)).rows;
      void called.pass();
      return { ref: "r" };
    },
  });
  const graph = graphOf(fine);
  await using cs = await open([graph], { pollIntervalMs: 20 });
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  await pool.query(`select pg_terminate_backend(pid) ${LISTENERS}`);
  await cs.start(graph, { n: 1 });
  await called.reached();
  stop.abort();
  await working;
  expect(listeners).toEqual([]);
});

it("listens again after its LISTEN connection was lost, and looks for what it missed", async () => {
  const called = gate();
  const fine = noting(called);
  const graph = graphOf(fine);
  await using worker = await open([graph], { pollIntervalMs: 60_000 });
  const stop = new AbortController();
  const working = worker.work({ signal: stop.signal });
  await using other = await open([graph]);
  await other.start(graph, { n: 1 });
  await called.reached(1);
  await pool.query(`select pg_terminate_backend(pid) ${LISTENERS}`);
  await other.start(graph, { n: 2 });
  await called.reached(2);
  stop.abort();
  await working;
});

it("runs registered kinds only: what no process serves stays runnable", async () => {
  const calls: string[] = [];
  const handler = (name: string) => async () => {
    calls.push(name);
    return { ref: name };
  };
  const first = graphOf(effect({ name: "served", version: 1, execute: handler("first") }));
  const second = graphOf(effect({ name: "served", version: 2, execute: handler("second") }));
  const other = graphOf(effect({ execute: handler("other") }));
  await using owner = await open([first]);
  const { threadId } = await owner.start(first, { n: 1 });
  await using stranger = await open([second, other]);
  await stranger.work({ until: "idle" });
  await later(PAST_LEASE_MS);
  await stranger.work({ until: "idle" });
  expect(await only(owner.intents(threadId))).toMatchObject({ status: "runnable", attempt: 0 });
  expect(calls).toEqual([]);
  await owner.work({ until: "idle" });
  expect(calls).toEqual(["first"]);
});

it("refuses a concurrency that makes no sense", () => {
  for (const concurrency of [0, 1.5, Number.NaN, 10_001]) {
    expect(() => postgres({ concurrency })).toThrow(expect.objectContaining({ code: "OPTION_INVALID" }));
  }
});
