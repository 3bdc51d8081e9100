import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { afterEach, expect, it, vi } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import {
  type AnyGraph,
  type Countersign,
  type CountersignOptions,
  commitAll,
  countersign,
  defineGraph,
  type ExecutionIntent,
  type PollResult,
  pending,
} from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import {
  type Answered,
  clockOf,
  effect,
  graphOf,
  MIA,
  NEEDS_MANAGER,
  PAST_LEASE_MS,
  type TestCommitment,
  type TestOutcome,
  uniqueName,
} from "../support/effects.ts";
import { gate } from "../support/gate.ts";
import { watchedPool } from "../support/watched-pool.ts";

const { pool, url } = await testDatabase();
const { later, inMs } = clockOf(pool);

/** What no caller was told of. A test that expects some takes them out. */
const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));

const open = (graphs: AnyGraph[], options: Partial<CountersignOptions> = {}) =>
  countersign({ database: pool, graphs, backend: postgres(), onError: (error) => errors.push(error), ...options });

async function intentOf(cs: Countersign, threadId: string): Promise<ExecutionIntent> {
  const [intent] = await cs.intents(threadId);
  if (intent === undefined) throw new Error("no intent");
  return intent;
}

/** Work until idle has driven the thread to its end; if not, nobody does, and this says so soon. */
async function outcomeOf(cs: Countersign, threadId: string) {
  const result = await cs.result<{ outcome: TestOutcome }>(threadId, { signal: AbortSignal.timeout(3_000) });
  return result.output?.outcome;
}

/** A thread whose one effect was carried out until it waits for the provider. */
async function pendingEffect(definition: Partial<Parameters<typeof effect>[0]> & { expiresAt?: Date } = {}) {
  const { expiresAt, ...declared } = definition;
  const externalRef = uniqueName("envelope");
  const sign = effect({
    execute: async () => pending({ externalRef, ...(expiresAt === undefined ? {} : { expiresAt }) }),
    ...declared,
  });
  const graph = graphOf(sign);
  const cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  const intent = await intentOf(cs, threadId);
  return { cs, graph, sign, threadId, intent, externalRef, [Symbol.asyncDispose]: () => cs.close() };
}

it("waits for the provider after a handler has answered that the effect is under way", async () => {
  await using world = await pendingEffect();
  const { cs, threadId, intent, externalRef } = world;
  expect(intent).toMatchObject({ status: "awaiting_external", externalRef, leaseOwner: null, output: null });
  await later(PAST_LEASE_MS);
  await cs.work({ until: "idle" });
  expect(await intentOf(cs, threadId)).toMatchObject({ status: "awaiting_external", attempt: 1 });
  expect(await cs.drive(threadId)).toBe("waiting");
});

it("ends a pending effect by the reference that the provider gave", async () => {
  await using world = await pendingEffect();
  const { cs, threadId, sign, externalRef } = world;
  await cs.complete({ commitment: sign, externalRef }, { output: { ref: "signed" }, receipt: { seal: 1 } });
  await cs.work({ until: "idle" });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "succeeded", output: { ref: "signed" } });
  expect(await intentOf(cs, threadId)).toMatchObject({ receipt: { seal: 1 } });
});

it("ends a pending effect by its intent's id, on a person's word", async () => {
  await using world = await pendingEffect();
  const { cs, threadId, intent } = world;
  await cs.complete({ intentId: intent.id }, { output: { ref: "signed" }, by: MIA });
  await cs.work({ until: "idle" });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "succeeded", output: { ref: "signed" } });
  const row = (await cs.audit.list(threadId)).find(({ action }) => action === "intent.succeeded");
  expect(row).toMatchObject({ actorType: "human", actorId: "mia" });
});

it("takes a webhook that is delivered several times for one outcome", async () => {
  await using world = await pendingEffect();
  const { cs, threadId, sign, externalRef } = world;
  const ref = { commitment: sign, externalRef };
  await Promise.all([1, 2, 3].map(() => cs.complete(ref, { output: { ref: "first" } })));
  await cs.complete(ref, { output: { ref: "another" } });
  await cs.work({ until: "idle" });
  await cs.complete(ref, { output: { ref: "late" } });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ output: { ref: "first" } });
  expect((await intentOf(cs, threadId)).output).toEqual({ ref: "first" });
  const ends = (await cs.audit.list(threadId)).filter(({ action }) => action === "intent.succeeded");
  expect(ends).toHaveLength(1);
});

it.each([
  ["pending", pending({ externalRef: "too-late" })],
  ["done", { ref: "handler" }],
])("counts a completion that is faster than the handler's answer once, when that says %s", async (_what, answer) => {
  const held = gate();
  const graph = graphOf(effect({ execute: () => held.pass().then(() => answer) }));
  await using worker = await open([graph]);
  await using webhook = await open([graph]);
  const { threadId } = await worker.start(graph, { n: 1 });
  const working = worker.work({ until: "idle" });
  await held.reached();
  const { id: intentId } = await intentOf(webhook, threadId);
  await webhook.complete({ intentId }, { output: { ref: "webhook" } });
  held.open();
  await working;
  expect(errors.splice(0)).toMatchObject([{ code: "LEASE_LOST" }]);
  expect(await outcomeOf(webhook, threadId)).toMatchObject({ status: "succeeded", output: { ref: "webhook" } });
  expect(await intentOf(webhook, threadId)).toMatchObject({ output: { ref: "webhook" }, externalRef: null });
});

it("lets go of a handler whose effect was completed in its own process", async () => {
  let reason: unknown;
  const graph: AnyGraph = graphOf(
    effect({
      execute: async (_input, { intentId, signal }) => {
        await cs.complete({ intentId }, { output: { ref: "webhook" } });
        reason = signal.reason;
        return { ref: "handler" };
      },
    }),
  );
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  expect(reason).toMatchObject({ code: "LEASE_LOST" });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ output: { ref: "webhook" } });
});

it("refuses an output that does not fit the commitment, and changes nothing", async () => {
  await using world = await pendingEffect();
  const { cs, threadId, intent } = world;
  const refused = cs.complete({ intentId: intent.id }, { output: { ref: 7 } });
  await expect(refused).rejects.toMatchObject({ code: "OUTPUT_INVALID" });
  expect((await intentOf(cs, threadId)).status).toBe("awaiting_external");
});

it("ends a pending effect as failed when the provider says so", async () => {
  await using world = await pendingEffect();
  const { cs, threadId, sign, externalRef } = world;
  await cs.fail({ commitment: sign, externalRef }, { reason: "The signer declined", reasonCode: "declined" });
  await cs.work({ until: "idle" });
  const error = { code: "PROVIDER_FAILED", message: "The signer declined" };
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "failed", error });
  const row = (await cs.audit.list(threadId)).find(({ action }) => action === "intent.failed");
  expect(row).toMatchObject({ actorType: "automated_workflow", reasonCode: "declined" });
  expect(JSON.stringify(row)).not.toContain("signer");
});

it("expires a pending effect at the time that its handler gave", async () => {
  await using world = await pendingEffect({ expiresAt: inMs(60_000) });
  const { cs, threadId } = world;
  await later(50_000);
  await cs.work({ until: "idle" });
  expect((await intentOf(cs, threadId)).status).toBe("awaiting_external");
  await later(20_000);
  await cs.work({ until: "idle" });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "expired" });
});

it("refuses to complete what has expired, although nobody has marked it so yet", async () => {
  await using world = await pendingEffect({ expiresAt: inMs(60_000) });
  const { cs, threadId, intent } = world;
  await later(70_000);
  const refused = cs.complete({ intentId: intent.id }, { output: { ref: "late" } });
  await expect(refused).rejects.toMatchObject({ code: "INTENT_STATE" });
  await cs.work({ until: "idle" });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "expired" });
});

/** Answers of a provider that is polled, the last one for good. */
function polled(...answers: (() => Promise<PollResult<Answered>>)[]) {
  const asked: unknown[] = [];
  return {
    asked,
    poll: (question: unknown) => {
      asked.push(question);
      return (answers[Math.min(asked.length, answers.length) - 1] as () => Promise<PollResult<Answered>>)();
    },
    pollIntervalMs: 60_000,
  };
}

it("asks the provider at the commitment's own interval until the effect has ended", async () => {
  const { asked, ...polling } = polled(
    async () => ({ status: "pending" }),
    async () => ({ status: "succeeded", output: { ref: "seen" }, receipt: { page: 1 } }),
  );
  await using world = await pendingEffect(polling);
  const { cs, threadId, externalRef } = world;
  expect(asked).toEqual([]);
  await later(60_000);
  await cs.work({ until: "idle" });
  await cs.work({ until: "idle" });
  expect(asked).toEqual([{ externalRef, input: { n: 1 } }]);
  await later(60_000);
  await cs.work({ until: "idle" });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "succeeded", output: { ref: "seen" } });
  expect(await intentOf(cs, threadId)).toMatchObject({ receipt: { page: 1 } });
});

it("ends a polled effect as failed when the provider says so", async () => {
  const polling = polled(async () => ({ status: "failed", reason: "Declined" }));
  await using world = await pendingEffect(polling);
  const { cs, threadId } = world;
  await later(60_000);
  await cs.work({ until: "idle" });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "failed", error: { message: "Declined" } });
});

it("goes on asking after a poll that failed or answered what the output schema refuses", async () => {
  const polling = polled(
    () => Promise.reject(new Error("away")),
    async () => ({ status: "succeeded", output: { ref: 7 } }) as never,
    async () => ({ status: "succeeded", output: { ref: "seen" } }),
  );
  await using world = await pendingEffect(polling);
  const { cs, threadId } = world;
  for (const seen of [{ message: "away" }, { code: "OUTPUT_INVALID" }]) {
    await later(60_000);
    await cs.work({ until: "idle" });
    expect(errors.splice(0)).toMatchObject([seen]);
    expect((await intentOf(cs, threadId)).status).toBe("awaiting_external");
  }
  await later(60_000);
  await cs.work({ until: "idle" });
  expect((await intentOf(cs, threadId)).status).toBe("succeeded");
});

it("leaves the database alone while another process is to poll", async () => {
  const { asked, ...polling } = polled(async () => ({ status: "pending" }));
  await using world = await pendingEffect(polling);
  await later(60_000);
  const watched = watchedPool(url);
  const stranger = await open([graphOf(effect({ execute: async () => ({ ref: "r" }) }))], {
    database: watched.pool,
    pollIntervalMs: 60_000,
  });
  const stop = new AbortController();
  const working = stranger.work({ signal: stop.signal });
  for (let i = 0; i < 100; i++) await pool.query("select 1");
  const before = watched.statements.length;
  for (let i = 0; i < 300; i++) await pool.query("select 1");
  const sent = watched.statements.length - before;
  stop.abort();
  await working;
  await stranger.close();
  await watched.pool.end();
  expect(asked).toEqual([]);
  expect(sent).toBeLessThan(10);
  expect((await intentOf(world.cs, world.threadId)).status).toBe("awaiting_external");
});

/** An effect whose provider does not answer when it is polled, and a process that has begun to ask. */
async function hungPoll() {
  const asked = gate();
  const polling = { pollIntervalMs: 60_000, poll: () => asked.pass().then(() => ({ status: "pending" }) as const) };
  const world = await pendingEffect(polling);
  await later(60_000);
  const working = world.cs.work();
  await asked.reached();
  return { ...world, asked, working };
}

it("goes on to carry out effects while a provider takes its time to be polled", async () => {
  await using world = await hungPoll();
  const { threadId } = await world.cs.start(world.graph, { n: 2 });
  await vi.waitFor(async () => expect((await intentOf(world.cs, threadId)).status).toBe("awaiting_external"));
  world.asked.open();
});

it("does not wait, when it closes, for a provider that does not answer a poll", async () => {
  await using world = await hungPoll();
  const started = performance.now();
  await world.cs.close({ timeoutMs: 10 });
  await world.working;
  expect(performance.now() - started).toBeLessThan(5_000);
});

it("refuses to complete or fail what ended in another way", async () => {
  await using world = await pendingEffect();
  const { cs, threadId, intent } = world;
  const ref = { intentId: intent.id };
  await cs.fail(ref, { reason: "Declined" });
  await expect(cs.complete(ref, { output: { ref: "r" } })).rejects.toMatchObject({ code: "INTENT_ENDED" });
  await cs.fail(ref, { reason: "Declined" });
  await using done = await pendingEffect();
  await done.cs.complete({ intentId: done.intent.id }, { output: { ref: "r" } });
  const refused = done.cs.fail({ intentId: done.intent.id }, { reason: "no" });
  await expect(refused).rejects.toMatchObject({ code: "INTENT_ENDED" });
  expect((await intentOf(cs, threadId)).error?.message).toBe("Declined");
});

it("refuses to complete what nobody has sent yet", async () => {
  const graph = graphOf(effect({ execute: async () => ({ ref: "r" }) }));
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  const { id: intentId } = await intentOf(cs, threadId);
  const refused = cs.complete({ intentId }, { output: { ref: "forged" } });
  await expect(refused).rejects.toMatchObject({ code: "INTENT_STATE" });
});

it("says so when a webhook, a cancellation or a replay names an intent that does not exist", async () => {
  await using world = await pendingEffect();
  const { cs, sign } = world;
  const output = { ref: "r" };
  const missing = { code: "INTENT_NOT_FOUND" };
  await expect(cs.complete({ commitment: sign, externalRef: "other" }, { output })).rejects.toMatchObject(missing);
  for (const intentId of ["5f0a9b7d-2e1c-4a4f-8d63-6d2f3a1e8c4b", "not a uuid"]) {
    await expect(cs.complete({ intentId }, { output })).rejects.toMatchObject(missing);
    await expect(cs.cancelIntent(intentId, { by: MIA })).rejects.toMatchObject(missing);
    await expect(cs.replay(intentId, { by: MIA })).rejects.toMatchObject(missing);
    expect(await cs.intent(intentId)).toBeUndefined();
  }
});

it("cancels a pending effect: the graph is told, and a later webhook is refused", async () => {
  await using world = await pendingEffect();
  const { cs, threadId, intent, sign, externalRef } = world;
  await cs.cancelIntent(intent.id, { by: MIA });
  await cs.work({ until: "idle" });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "cancelled" });
  const late = cs.complete({ commitment: sign, externalRef }, { output: { ref: "late" } });
  await expect(late).rejects.toMatchObject({ code: "INTENT_ENDED" });
  const row = (await cs.audit.list(threadId)).find(({ action }) => action === "intent.cancelled");
  expect(row).toMatchObject({ actorType: "human", actorId: "mia" });
});

it.each([
  ["a request that waits for a person", NEEDS_MANAGER],
  ["an effect that is ready to run", {}],
])("cancels %s: its handler is never called", async (_what, classes) => {
  let calls = 0;
  const graph = graphOf(
    effect({
      ...classes,
      execute: async () => {
        calls++;
        return { ref: "r" };
      },
    }),
  );
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.cancelIntent((await intentOf(cs, threadId)).id, { by: MIA });
  await cs.work({ until: "idle" });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "cancelled" });
  expect(await cs.pending({ threadId })).toEqual([]);
  expect(calls).toBe(0);
});

/** A handler that stops when it is asked to. */
function stoppable(semantics: TestCommitment["semantics"]) {
  const running = gate();
  const reasons: unknown[] = [];
  const commitment = effect({
    semantics,
    execute: (_input, { signal }) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => {
          reasons.push(signal.reason);
          reject(signal.reason);
        });
        void running.pass();
      }),
  });
  return { commitment, running, reasons };
}

it.each([
  ["at-least-once", "cancelled"],
  // Nobody knows what the provider has done by then (rule 15).
  ["at-most-once", "unknown"],
] as const)("asks a running %s effect to stop by its signal: it is then %s", async (semantics, status) => {
  const { commitment, running, reasons } = stoppable(semantics);
  const graph = graphOf(commitment);
  await using worker = await open([graph]);
  await using other = await open([graph]);
  const stop = new AbortController();
  const working = worker.work({ signal: stop.signal });
  const { threadId } = await other.start(graph, { n: 1 });
  await running.reached();
  await other.cancelIntent((await intentOf(other, threadId)).id, { by: MIA });
  for await (const row of other.events(threadId)) if (row.action === `intent.${status}`) break;
  stop.abort();
  await working;
  expect(reasons).toHaveLength(1);
  expect(await intentOf(other, threadId)).toMatchObject({ status, attempt: 1 });
});

it("records an effect as done that its handler did although it heard that it was cancelled: it can be undone then", async () => {
  const running = gate();
  const commitment = effect({
    execute: (_input, { signal }) =>
      new Promise((resolve) => {
        signal.addEventListener("abort", () => resolve({ ref: "too late to stop" }));
        void running.pass();
      }),
  });
  const graph = graphOf(commitment);
  await using cs = await open([graph]);
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  const { threadId } = await cs.start(graph, { n: 1 });
  await running.reached();
  await cs.cancelIntent((await intentOf(cs, threadId)).id, { by: MIA });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "succeeded", output: { ref: "too late to stop" } });
  stop.abort();
  await working;
});

it.each([
  ["fails before it hears of that", () => Promise.reject(new Error("away")), "cancelled"],
  ["answers that the effect is pending", async () => pending({ externalRef: "env" }), "cancelled"],
  ["has done it", async () => ({ ref: "done" }), "succeeded"],
])("does not send again a cancelled effect whose handler %s", async (_what, answer, status) => {
  let calls = 0;
  const held = gate();
  const graph = graphOf(
    effect({
      retry: { initialIntervalMs: 0 },
      execute: async () => {
        calls++;
        await held.pass();
        return answer();
      },
    }),
  );
  await using worker = await open([graph]);
  await using other = await open([graph]);
  const { threadId } = await worker.start(graph, { n: 1 });
  // Until idle, a worker hears of cancellations with its heartbeat only.
  const working = worker.work({ until: "idle" });
  await held.reached();
  await other.cancelIntent((await intentOf(other, threadId)).id, { by: MIA });
  held.open();
  await working;
  expect(calls).toBe(1);
  expect(await outcomeOf(other, threadId)).toMatchObject({ status });
});

it("does not send again a cancelled effect whose worker was lost", async () => {
  let calls = 0;
  const held = gate();
  const graph = graphOf(
    effect({
      execute: async () => {
        calls++;
        await held.pass();
        return { ref: "r" };
      },
    }),
  );
  await using dying = await open([graph]);
  await using cs = await open([graph]);
  const { threadId } = await dying.start(graph, { n: 1 });
  const working = dying.work({ until: "idle" });
  await held.reached();
  await cs.cancelIntent((await intentOf(cs, threadId)).id, { by: MIA });
  await later(PAST_LEASE_MS);
  await cs.work({ until: "idle" });
  const { status } = await intentOf(cs, threadId);
  await dying.close({ timeoutMs: 0 });
  await working;
  expect(calls).toBe(1);
  expect(status).toBe("cancelled");
});

it("changes nothing when it refuses to cancel what has ended", async () => {
  const State = Annotation.Root({ statuses: Annotation<string[]> });
  const fast = effect({ execute: async () => ({ ref: "r" }) });
  const slow = effect({ ...NEEDS_MANAGER, execute: async () => ({ ref: "r" }) });
  const graph = defineGraph({
    name: uniqueName("both"),
    version: 1,
    durability: "durable",
    commitments: [fast, slow],
    graph: new StateGraph(State)
      .addNode("act", async () => {
        const outcomes = await commitAll([
          { commitment: fast, input: { n: 1 } },
          { commitment: slow, input: { n: 2 } },
        ]);
        return { statuses: outcomes.map((outcome) => outcome.status) };
      })
      .addEdge(START, "act")
      .addEdge("act", END),
  });
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { statuses: [] });
  await cs.work({ until: "idle" });
  const done = (await cs.intents(threadId)).find((intent) => intent.status === "succeeded");
  const refused = cs.cancelIntent(done?.id ?? "", { by: MIA });
  await expect(refused).rejects.toMatchObject({ code: "INTENT_ENDED" });
  expect(await cs.pending({ threadId })).toHaveLength(1);
});
