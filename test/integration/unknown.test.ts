import { afterEach, expect, it } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import {
  type AnyGraph,
  type Countersign,
  type CountersignOptions,
  countersign,
  type ExecutionIntent,
  NonRetryableError,
  type Reconciliation,
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
} from "../support/effects.ts";
import { gate } from "../support/gate.ts";

const { pool } = await testDatabase();
const { later } = clockOf(pool);

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

type Reconcile = (asked: { idempotencyKey: string; input: { n: number } }) => Promise<Reconciliation<Answered>>;

/** An at-most-once effect whose first worker dies with the call under way: what is left is `unknown`. */
async function lost(reconcile?: Reconcile) {
  const calls: string[] = [];
  const stuck = gate();
  const pay = effect({
    semantics: "at-most-once",
    ...(reconcile === undefined ? {} : { reconcile }),
    execute: async (_input, { idempotencyKey }) => {
      calls.push(idempotencyKey);
      await stuck.pass();
      return { ref: "late" };
    },
  });
  const graph = graphOf(pay);
  const dying = await open([graph]);
  const { threadId } = await dying.start(graph, { n: 1 });
  const working = dying.work({ until: "idle" });
  await stuck.reached();
  await later(PAST_LEASE_MS);
  const cs = await open([graph]);
  await cs.work({ until: "idle" });
  return {
    cs,
    graph,
    threadId,
    calls,
    intent: await intentOf(cs, threadId),
    async [Symbol.asyncDispose]() {
      await dying.close({ timeoutMs: 0 });
      await working;
      await cs.close();
    },
  };
}

/** Work until idle has driven the thread to its end; if not, nobody does, and this says so soon. */
async function outcomeOf(cs: Countersign, threadId: string) {
  const result = await cs.result<{ outcome: TestOutcome }>(threadId, { signal: AbortSignal.timeout(3_000) });
  return result.output?.outcome;
}

it("calls an at-most-once effect unknown when its worker is lost, and never sends it again", async () => {
  await using world = await lost();
  const { cs, threadId, calls } = world;
  expect(world.intent).toMatchObject({ status: "unknown", error: { code: "WORKER_LOST" } });
  await later(PAST_LEASE_MS);
  await cs.work({ until: "idle" });
  expect(calls).toEqual([world.intent.id]);
  expect((await intentOf(cs, threadId)).status).toBe("unknown");
  expect((await cs.state(threadId)).next).toEqual(["act"]);
  const row = (await cs.audit.list(threadId)).at(-1);
  expect(row).toMatchObject({ action: "intent.unknown", outcome: "unknown", reasonCode: "worker_lost" });
});

it("settles an unknown effect as done when the provider says that it was", async () => {
  const asked: unknown[] = [];
  await using world = await lost(async (question) => {
    asked.push(question);
    return { status: "succeeded", output: { ref: "found" }, receipt: { id: "r-1" } };
  });
  const { cs, threadId, calls, intent } = world;
  expect(intent).toMatchObject({ status: "succeeded", output: { ref: "found" }, receipt: { id: "r-1" }, error: null });
  expect(asked).toEqual([{ idempotencyKey: intent.id, input: { n: 1 } }]);
  expect(calls).toHaveLength(1);
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "succeeded", output: { ref: "found" } });
  expect((await cs.audit.list(threadId)).map((row) => [row.action, row.reasonCode])).toContainEqual([
    "intent.reconciled",
    "confirmed_done",
  ]);
});

it("fails an unknown effect, and does not send it, when the provider says that it was not done", async () => {
  await using world = await lost(async () => ({ status: "not-done" }));
  const { cs, threadId, calls } = world;
  expect(world.intent).toMatchObject({ status: "failed", error: { code: "NOT_DONE" } });
  await later(PAST_LEASE_MS);
  await cs.work({ until: "idle" });
  expect(calls).toHaveLength(1);
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "failed", error: { code: "NOT_DONE" } });
});

it("asks the provider again, later, for as long as it does not know", async () => {
  const answers: Reconciliation<Answered>[] = [
    { status: "unknown" },
    { status: "unknown" },
    { status: "succeeded", output: { ref: "found" } },
  ];
  let asked = 0;
  await using world = await lost(async () => answers[asked++] ?? { status: "unknown" });
  const { cs, threadId } = world;
  expect(world.intent.status).toBe("unknown");
  await cs.work({ until: "idle" });
  expect(asked).toBe(1);
  await later(60_000);
  await cs.work({ until: "idle" });
  expect(asked).toBe(2);
  expect((await intentOf(cs, threadId)).status).toBe("unknown");
  await later(60_000);
  await cs.work({ until: "idle" });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "succeeded", output: { ref: "found" } });
});

it("keeps an effect unknown when the question itself fails, or its answer does not fit", async () => {
  const answers = [
    () => Promise.reject(new Error("the provider is away")),
    async () => ({ status: "succeeded", output: { ref: 7 } }) as never,
    async (): Promise<Reconciliation<Answered>> => ({ status: "succeeded", output: { ref: "found" } }),
  ];
  let asked = 0;
  await using world = await lost(() => (answers[asked++] as Reconcile)({ idempotencyKey: "", input: { n: 0 } }));
  const { cs, threadId } = world;
  expect(errors.splice(0)).toMatchObject([{ message: "the provider is away" }]);
  await later(60_000);
  await cs.work({ until: "idle" });
  expect(errors.splice(0)).toMatchObject([{ code: "OUTPUT_INVALID" }]);
  expect((await intentOf(cs, threadId)).status).toBe("unknown");
  await later(60_000);
  await cs.work({ until: "idle" });
  expect((await intentOf(cs, threadId)).status).toBe("succeeded");
});

it("lets two processes ask the provider only once at a time", async () => {
  let asked = 0;
  const held = gate();
  await using world = await lost(async () => {
    asked++;
    if (asked === 1) return { status: "unknown" };
    await held.pass();
    return { status: "succeeded", output: { ref: "found" } };
  });
  const { cs, threadId } = world;
  await later(60_000);
  const asking = cs.work({ until: "idle" });
  await held.reached();
  await using other = await open([world.graph]);
  await other.work({ until: "idle" });
  held.open();
  await asking;
  expect(asked).toBe(2);
  expect((await intentOf(cs, threadId)).status).toBe("succeeded");
});

it("lets a person settle an unknown effect as done with the provider's receipt, and not without one", async () => {
  await using world = await lost();
  const { cs, threadId, intent } = world;
  const ref = { intentId: intent.id };
  const output = { ref: "seen in their portal" };
  await expect(cs.complete(ref, { output, by: MIA })).rejects.toMatchObject({ code: "INTENT_STATE" });
  expect((await intentOf(cs, threadId)).status).toBe("unknown");

  await cs.complete(ref, { output, by: MIA, receipt: { page: 3 } });
  await cs.work({ until: "idle" });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "succeeded", output });
  expect(await intentOf(cs, threadId)).toMatchObject({ receipt: { page: 3 }, error: null });
  const row = (await cs.audit.list(threadId)).find(({ action }) => action === "intent.reconciled");
  expect(row).toMatchObject({ actorType: "human", actorId: "mia", outcome: "succeeded" });
});

it("refuses to cancel an unknown effect: somebody must find out first", async () => {
  await using world = await lost();
  const { cs, threadId, intent } = world;
  await expect(cs.cancelIntent(intent.id, { by: MIA })).rejects.toMatchObject({ code: "INTENT_STATE" });
  expect((await intentOf(cs, threadId)).status).toBe("unknown");
});

it("lets a person settle an unknown effect as failed", async () => {
  await using world = await lost();
  const { cs, threadId, intent, calls } = world;
  await cs.fail({ intentId: intent.id }, { reason: "They never got it", by: MIA });
  await cs.work({ until: "idle" });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "failed", error: { message: "They never got it" } });
  expect(calls).toHaveLength(1);
  const row = (await cs.audit.list(threadId)).find(({ action }) => action === "intent.reconciled");
  expect(row).toMatchObject({ actorType: "human", actorId: "mia", outcome: "failed" });
});

async function carriedOut(commitment: TestCommitment) {
  const graph = graphOf(commitment);
  const cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  return { threadId, intent: await intentOf(cs, threadId), [Symbol.asyncDispose]: () => cs.close() };
}

it.each([
  ["fails in a way that says nothing about the effect", new Error("socket hang up"), "unknown"],
  ["says that it failed for good", new NonRetryableError("The account is closed"), "failed"],
])("ends an at-most-once dispatch whose handler %s as it must", async (_what, thrown, status) => {
  let calls = 0;
  const pay = effect({
    semantics: "at-most-once",
    execute: async () => {
      calls++;
      throw thrown;
    },
  });
  await using world = await carriedOut(pay);
  expect(world.intent.status).toBe(status);
  expect(calls).toBe(1);
});

it("calls an at-most-once effect unknown when its handler takes too long", async () => {
  const pay = effect({ semantics: "at-most-once", timeoutMs: 20, execute: () => new Promise(() => {}) });
  await using world = await carriedOut(pay);
  expect(world.intent).toMatchObject({ status: "unknown", error: { code: "HANDLER_TIMEOUT" }, attempt: 1 });
});

it("replays an at-most-once failure only with a fresh approval, and under a new key", async () => {
  const keys: string[] = [];
  const pay = effect({
    ...NEEDS_MANAGER,
    semantics: "at-most-once",
    execute: async (_input, { idempotencyKey }) => {
      keys.push(idempotencyKey);
      if (keys.length === 1) throw new NonRetryableError("The account is closed");
      return { ref: "r" };
    },
  });
  const graph = graphOf(pay);
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  const { id, digest } = await intentOf(cs, threadId);
  await cs.approve(id, { by: MIA, digest });
  await cs.work({ until: "idle" });

  expect(await cs.replay(id, { by: MIA })).toMatchObject({ status: "awaiting_decision" });
  await cs.work({ until: "idle" });
  expect(keys).toHaveLength(1);
  const [asked] = await cs.pending({ threadId });
  // Rule 12: no request waits for good.
  expect(asked?.expiresAt).toBeInstanceOf(Date);
  await cs.approve(id, { by: MIA, digest });
  await cs.work({ until: "idle" });
  expect(await intentOf(cs, threadId)).toMatchObject({ status: "succeeded", output: { ref: "r" } });
  expect(keys).toEqual([id, expect.not.stringMatching(new RegExp(`^${id}$`))]);
});

it("runs an at-least-once effect of a lost worker again under its key, and refuses the zombie's answer", async () => {
  const keys: string[] = [];
  const [stuck, second] = [gate(), gate()];
  const send = effect({
    execute: async (_input, { idempotencyKey, attempt }) => {
      keys.push(idempotencyKey);
      await (attempt === 1 ? stuck : second).pass();
      return { ref: attempt === 1 ? "zombie" : "second" };
    },
  });
  const graph = graphOf(send);
  await using zombie = await open([graph]);
  await using cs = await open([graph]);
  const { threadId } = await zombie.start(graph, { n: 1 });
  const working = zombie.work({ until: "idle" });
  await stuck.reached();
  await later(PAST_LEASE_MS);
  const rescuing = cs.work({ until: "idle" });
  await second.reached();
  stuck.open();
  await working;
  expect(await intentOf(cs, threadId)).toMatchObject({ status: "dispatched", output: null, attempt: 2 });
  second.open();
  await rescuing;

  expect(errors.splice(0)).toMatchObject([{ code: "LEASE_LOST" }]);
  const intent = await intentOf(cs, threadId);
  expect(intent).toMatchObject({ status: "succeeded", output: { ref: "second" }, attempt: 2 });
  expect(keys).toEqual([intent.id, intent.id]);
  const actions = (await cs.audit.list(threadId)).map((row) => row.action);
  expect(actions.filter((action) => action === "intent.succeeded")).toHaveLength(1);
});

it("fails an at-least-once effect whose workers were lost as often as it may be tried", async () => {
  const stuck = gate();
  const send = effect({ retry: { maxAttempts: 1 }, execute: () => stuck.pass().then(() => ({ ref: "zombie" })) });
  const graph = graphOf(send);
  await using zombie = await open([graph]);
  await using cs = await open([graph]);
  const { threadId } = await zombie.start(graph, { n: 1 });
  const working = zombie.work({ until: "idle" });
  await stuck.reached();
  await later(PAST_LEASE_MS);
  await cs.work({ until: "idle" });
  expect(await outcomeOf(cs, threadId)).toMatchObject({ status: "failed", error: { code: "WORKER_LOST" } });
  stuck.open();
  await working;
  expect(errors.splice(0)).toMatchObject([{ code: "LEASE_LOST" }]);
});
