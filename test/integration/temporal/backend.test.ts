import { Client, Connection } from "@temporalio/client";
import { afterAll, afterEach, expect, it, vi } from "vitest";
import { temporal } from "../../../src/backends/temporal/index.ts";
import {
  type AnyGraph,
  type CountersignOptions,
  commitAll,
  countersign,
  NonRetryableError,
  pending,
} from "../../../src/index.ts";
import { testDatabase } from "../../support/database.ts";
import { effect, graphOf, MIA, NEEDS_MANAGER, type TestOutcome, uniqueName } from "../../support/effects.ts";
import { gate } from "../../support/gate.ts";
import { testTemporal } from "../../support/temporal.ts";
import { graphWith } from "../../support/undoing.ts";

const { pool } = await testDatabase();
const { address } = await testTemporal();
const connection = await Connection.connect({ address });
const client = new Client({ connection });
afterAll(() => connection.close());

/** What no caller was told of. A test that expects some takes them out. */
const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));

const open = (graphs: AnyGraph[], options: Partial<CountersignOptions> = {}) =>
  countersign({
    database: pool,
    graphs,
    backend: temporal({ address, taskQueue: uniqueName("queue") }),
    onError: (error) => errors.push(error),
    ...options,
  });

async function intentOf(cs: Awaited<ReturnType<typeof open>>, threadId: string) {
  const [intent] = await cs.intents(threadId);
  if (intent === undefined) throw new Error("no intent");
  return intent;
}

/** Everything that Temporal keeps of a workflow, payloads decoded, as text. */
async function historyOf(workflowId: string): Promise<{ readonly text: string; readonly events: number }> {
  const { events } = await client.workflow.getHandle(workflowId).fetchHistory();
  const text = JSON.stringify(events);
  const payloads = [...text.matchAll(/"data":"([^"]*)"/g)].map(([, data]) => Buffer.from(data ?? "", "base64"));
  return { text: text + Buffer.concat(payloads).toString("utf8"), events: events?.length ?? 0 };
}

/** Works in the background until the test is done with it. */
function working(cs: Awaited<ReturnType<typeof open>>) {
  const stop = new AbortController();
  const done = cs.work({ signal: stop.signal });
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await done;
    },
  };
}

const eventually = (seen: () => Promise<void>) => vi.waitFor(seen, { timeout: 15_000 });

const describeRun = (workflowId: string) => client.workflow.getHandle(workflowId).describe();

it("carries an intent out in one workflow, of its commitment's pinned type and under its own id", async () => {
  const keys: string[] = [];
  const send = effect({
    execute: async ({ n }, { idempotencyKey }) => {
      keys.push(idempotencyKey);
      return { ref: `sent ${n}` };
    },
  });
  const graph = graphOf(send);
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await using _work = working(cs);
  const { output } = await cs.result<{ outcome: TestOutcome }>(threadId);
  expect(output?.outcome).toMatchObject({ status: "succeeded", output: { ref: "sent 1" } });
  const intent = await intentOf(cs, threadId);
  expect(intent).toMatchObject({ status: "succeeded", backend: "temporal", attempt: 1 });
  expect(keys).toEqual([intent.id]);
  const handle = client.workflow.getHandle(intent.id);
  expect(await handle.result()).toEqual({ intentId: intent.id, status: "succeeded" });
  expect(await handle.describe()).toMatchObject({ type: send.workflowKey, status: { name: "COMPLETED" } });
});

it("leaves ids and digests in Temporal's history, and no more events than one activity takes", async () => {
  const graph = graphOf(effect({ execute: async () => ({ ref: "iban DE00 1234" }) }));
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 271828 });
  await using _work = working(cs);
  await cs.result(threadId);
  const intent = await intentOf(cs, threadId);
  await client.workflow.getHandle(intent.id).result();
  const { text, events } = await historyOf(intent.id);
  expect(text).toContain(intent.id);
  expect(text).toContain(intent.digest);
  expect(text).not.toContain("271828");
  expect(text).not.toContain("DE00");
  expect(events).toBe(11);
});

it("gets the first task of a workflow with the answer to its start, where the starter works, too", async () => {
  const send = effect({ execute: async () => ({ ref: "r" }) });
  const graph = graphOf(send);
  await using cs = await open([graph]);
  await using _work = working(cs);
  // That one has ended, so its worker polls.
  await cs.result((await cs.start(graph, { n: 1 })).threadId);

  const { threadId } = await cs.start(graph, { n: 2 });
  await cs.result(threadId);

  const { events } = await client.workflow.getHandle((await intentOf(cs, threadId)).id).fetchHistory();
  const started = events?.[0]?.workflowExecutionStartedEventAttributes;
  expect(started?.eagerExecutionAccepted).toBe(true);
});

it("says nothing of a handler's error to Temporal, whether it is tried again or is the last", async () => {
  const graph = graphOf(
    effect({
      retry: { initialIntervalMs: 1 },
      execute: async (_input, { attempt }) => {
        if (attempt < 3) throw new Error("card 4111 was declined");
        throw new NonRetryableError("card 4111 is stolen");
      },
    }),
  );
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await using _work = working(cs);
  const { output } = await cs.result<{ outcome: TestOutcome }>(threadId);
  expect(output?.outcome).toMatchObject({ status: "failed", error: { message: "card 4111 is stolen" } });
  const intent = await intentOf(cs, threadId);
  expect(intent.attempt).toBe(3);
  await eventually(async () => expect((await describeRun(intent.id)).status.name).toBe("FAILED"));
  const { text, events } = await historyOf(intent.id);
  expect(text).not.toContain("4111");
  // Retries are Temporal's, and leave no events.
  expect(events).toBe(11);
});

it("puts a cancellation from Temporal to the row of a pending effect, and ends with it", async () => {
  const graph = graphOf(effect({ execute: async () => pending({ externalRef: uniqueName("envelope") }) }));
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await using _work = working(cs);
  await eventually(async () => expect((await intentOf(cs, threadId)).status).toBe("awaiting_external"));
  const { id } = await intentOf(cs, threadId);
  await client.workflow.getHandle(id).cancel();
  const { output } = await cs.result<{ outcome: TestOutcome }>(threadId);
  expect(output?.outcome).toMatchObject({ status: "cancelled" });
  await eventually(async () => expect((await describeRun(id)).status.name).toBe("CANCELLED"));
  const row = (await cs.audit.list(threadId)).find(({ action }) => action === "intent.cancelled");
  expect(row).toMatchObject({ actorType: "automated_workflow", actorId: "temporal" });
});

it("gives up the rest of a commitAll with the one that is cancelled from Temporal (G5)", async () => {
  const handedOver = effect({ execute: async () => pending({ externalRef: uniqueName("envelope") }) });
  const asked = effect({ ...NEEDS_MANAGER, execute: async () => ({ ref: "sent" }) });
  const graph = graphWith([handedOver, asked], async () => {
    const outcomes = await commitAll([
      { commitment: handedOver, input: { n: 1 } },
      { commitment: asked, input: { n: 2 } },
    ]);
    return outcomes.map(({ status }) => status).join(", ");
  });
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { end: "" });
  await using _work = working(cs);
  await eventually(async () => expect((await intentOf(cs, threadId)).status).toBe("awaiting_external"));
  await client.workflow.getHandle((await intentOf(cs, threadId)).id).cancel();
  const { output } = await cs.result<{ end: string }>(threadId);
  expect(output?.end).toBe("cancelled, cancelled");
});

it("asks nobody about an unknown effect where nobody can be asked: it waits for a person", async () => {
  const graph = graphOf(
    effect({
      semantics: "at-most-once",
      execute: async () => {
        throw new Error("no answer");
      },
    }),
  );
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await using _work = working(cs);
  await eventually(async () => expect((await intentOf(cs, threadId)).status).toBe("unknown"));
  const { id } = await intentOf(cs, threadId);
  const attemptOf = async (): Promise<number | undefined> =>
    (await describeRun(id)).raw.pendingActivities?.find(({ activityType }) => activityType?.name?.endsWith(":follow"))
      ?.attempt ?? undefined;
  // By its second attempt it would be clear that it asks at once, again and again.
  await eventually(async () => expect(await attemptOf()).toBe(2));
  await expect(vi.waitFor(async () => expect(await attemptOf()).toBeGreaterThan(3), 2_000)).rejects.toThrow();
});

it("tells a running handler of a cancellation from Temporal", async () => {
  const called = gate();
  const graph = graphOf(
    effect({
      execute: (_input, { signal }) => {
        void called.pass();
        return new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(new Error("stopped"))));
      },
    }),
  );
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await using _work = working(cs);
  await called.reached();
  await client.workflow.getHandle((await intentOf(cs, threadId)).id).cancel();
  const { output } = await cs.result<{ outcome: TestOutcome }>(threadId);
  expect(output?.outcome).toMatchObject({ status: "cancelled" });
});

it("ends the workflow of a pending effect when a webhook has ended the row", async () => {
  const externalRef = uniqueName("envelope");
  const sign = effect({ execute: async () => pending({ externalRef }) });
  const graph = graphOf(sign);
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await using _work = working(cs);
  await eventually(async () => expect((await intentOf(cs, threadId)).status).toBe("awaiting_external"));
  await cs.complete({ commitment: sign, externalRef }, { output: { ref: "signed" } });
  const { id } = await intentOf(cs, threadId);
  expect(await client.workflow.getHandle(id).result()).toEqual({ intentId: id, status: "succeeded" });
});

it("expires a pending effect by a timer of its workflow", async () => {
  const graph = graphOf(
    effect({
      execute: async () => pending({ externalRef: uniqueName("envelope"), expiresAt: new Date(Date.now() + 1_500) }),
    }),
  );
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await using _work = working(cs);
  const { output } = await cs.result<{ outcome: TestOutcome }>(threadId);
  expect(output?.outcome).toMatchObject({ status: "expired" });
  const { id } = await intentOf(cs, threadId);
  expect(await client.workflow.getHandle(id).result()).toEqual({ intentId: id, status: "expired" });
  expect((await historyOf(id)).text).toContain("timerStartedEventAttributes");
});

it("follows a workflow that an operator terminated by another one: the row is still to be done", async () => {
  let providerIsBack = false;
  const graph = graphOf(
    effect({
      retry: { maxAttempts: 100, initialIntervalMs: 400, backoff: 1 },
      execute: async () => {
        if (!providerIsBack) throw new Error("away");
        return { ref: "r" };
      },
    }),
  );
  await using cs = await open([graph], { leaseMs: 500 });
  const { threadId } = await cs.start(graph, { n: 1 });
  await using _work = working(cs);
  await eventually(async () => expect((await intentOf(cs, threadId)).attempt).toBeGreaterThan(1));
  const { id } = await intentOf(cs, threadId);
  await client.workflow.getHandle(id).terminate("an operator's mistake");
  providerIsBack = true;
  const { output } = await cs.result<{ outcome: TestOutcome }>(threadId);
  expect(output?.outcome).toMatchObject({ status: "succeeded" });
});

it("never runs a workflow of a type that no commitment registered, nor one whose row is not approved", async () => {
  let calls = 0;
  const taskQueue = uniqueName("queue");
  const send = effect({
    ...NEEDS_MANAGER,
    execute: async () => {
      calls++;
      return { ref: "r" };
    },
  });
  const graph = graphOf(send);
  await using cs = await open([graph], { backend: temporal({ address, taskQueue }) });
  const { threadId } = await cs.start(graph, { n: 1 });
  await using _work = working(cs);
  const { id: intentId, digest, workflowKey } = await intentOf(cs, threadId);
  const run = { intentId, digest, workflowKey, kind: "effect", startToCloseMs: 60_000, heartbeatMs: 30_000 };
  const args = [{ ...run, retry: { initialIntervalMs: 100, backoff: 2, maxIntervalMs: 1_000 } }];

  // Somebody who may start workflows, but did not ask anybody.
  const early = await client.workflow.start(workflowKey, { taskQueue, workflowId: `${intentId}-early`, args });
  expect(await early.result()).toEqual({ intentId, status: "awaiting_decision" });

  for (const type of ["carryOut", "default", "something.else@1", "toString"]) {
    const workflowId = uniqueName("stray");
    const stray = await client.workflow.start(type, { taskQueue, workflowId, args });
    await eventually(async () => {
      const { events } = await stray.fetchHistory();
      expect(events?.some(({ workflowTaskFailedEventAttributes: failed }) => failed)).toBe(true);
    });
    expect((await stray.describe()).status.name).toBe("RUNNING");
    await stray.terminate();
  }
  expect(calls).toBe(0);

  await cs.approve(intentId, { by: MIA, digest });
  const { output } = await cs.result<{ outcome: TestOutcome }>(threadId);
  expect(output?.outcome).toMatchObject({ status: "succeeded" });
  expect(calls).toBe(1);
}, 60_000);
