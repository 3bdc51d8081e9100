import { type BaseMessage, HumanMessage } from "@langchain/core/messages";
import { FakeListChatModel } from "@langchain/core/utils/testing";
import { Annotation, END, InMemoryStore, type LangGraphRunnableConfig, START, StateGraph } from "@langchain/langgraph";
import { afterEach, expect, it, vi } from "vitest";
import { z } from "zod";
import { postgres } from "../../src/backends/postgres/index.ts";
import {
  type AnyGraph,
  type Countersign,
  type CountersignOptions,
  commit,
  countersign,
  type Durability,
  defineGraph,
  requestDecision,
  sleep,
  waitForEvent,
} from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { clockOf, effect, graphOf, MIA, manyOf, NEEDS_MANAGER, PAST_LEASE_MS, uniqueName } from "../support/effects.ts";
import { gate } from "../support/gate.ts";

const { pool, url } = await testDatabase();
const { later } = clockOf(pool);

/** What no caller was told of. A test that expects some takes them out. */
const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));

const open = (graphs: AnyGraph[], options: Partial<CountersignOptions> = {}) =>
  countersign({ database: pool, graphs, backend: postgres(), onError: (error) => errors.push(error), ...options });

const State = Annotation.Root({
  steps: Annotation<string[]>({ reducer: (before, now) => [...before, ...now], default: () => [] }),
});
type State = typeof State.State;
const NOTHING: State = { steps: [] };

/** What a node does; it leaves its answer, or else its name, in the state. */
type Step = (config: LangGraphRunnableConfig) => Promise<unknown>;

function builderOf(steps: Record<string, Step>) {
  const nodes = Object.entries(steps).map(([name, step]) => [
    name,
    async (_state: State, config: LangGraphRunnableConfig) => ({ steps: [String((await step(config)) ?? name)] }),
  ]);
  // The names are not known to the types, so neither are the edges.
  const builder = new StateGraph(State, z.looseObject({})).addSequence(nodes as never);
  return builder.addEdge(START, Object.keys(steps)[0] as never);
}

/** A graph of these nodes, one after the other. */
function stepsOf(steps: Record<string, Step>, durability: Durability = "durable"): AnyGraph {
  const lossWindow = durability === "async" ? { lossWindow: "the last steps: they are cheap to run again" } : {};
  return defineGraph({
    name: uniqueName("steps"),
    version: 1,
    durability,
    ...lossWindow,
    graph: builderOf(steps),
  } as Parameters<typeof defineGraph>[0]);
}

async function stepsTaken(cs: Countersign, threadId: string): Promise<string[]> {
  return ((await cs.state(threadId)).values as State).steps;
}

async function threadRow(threadId: string): Promise<Record<string, unknown>> {
  const { rows } = await pool.query("select * from countersign.threads where thread_id = $1", [threadId]);
  return rows[0];
}

/** Waits for the end for so long as a test may take; if nobody drives the thread, this says so. */
const resultOf = (cs: Countersign, threadId: string) =>
  cs.result<State>(threadId, { signal: AbortSignal.timeout(5_000) });

// Starting

it("has recorded a thread and its input before the first node runs", async () => {
  let seen: unknown;
  const graph = stepsOf({
    look: async () => {
      seen = await threadRow("first");
    },
  });
  await using cs = await open([graph]);
  const run = await cs.start(graph, { steps: ["given"] }, { threadId: "first", correlationId: "case-7" });
  expect(seen).toMatchObject({ status: "running", correlation_id: "case-7", input: expect.any(Buffer) });
  expect(run).toMatchObject({ threadId: "first", status: "completed", output: { steps: ["given", "look"] } });
});

it("starts a thread once, however many start it at the same time", async () => {
  let runs = 0;
  const graph = stepsOf({
    count: async () => {
      runs++;
    },
  });
  await using cs = await open([graph]);
  const options = { threadId: "only-once" };
  const starts = await Promise.allSettled([1, 2, 3].map(() => cs.start(graph, NOTHING, options)));
  expect(starts.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  await expect(cs.start(graph, NOTHING, options)).rejects.toMatchObject({ code: "THREAD_EXISTS" });
  expect(runs).toBe(1);
});

it.each([
  ["an empty thread id", { threadId: "" }],
  ["a thread id with NUL", { threadId: "a\u0000" }],
  ["a tenant that is no text", { tenant: 7 as never }],
  ["a correlation id that is far too long", { correlationId: "x".repeat(501) }],
])("refuses to start a thread with %s", async (_what, options) => {
  const graph = stepsOf({ one: async () => {} });
  await using cs = await open([graph]);
  await expect(cs.start(graph, NOTHING, options)).rejects.toMatchObject({ code: "OPTION_INVALID" });
});

it("does not start a thread whose signal has aborted", async () => {
  const graph = stepsOf({ one: async () => {} });
  await using cs = await open([graph]);
  const signal = AbortSignal.abort(new Error("too late"));
  await expect(cs.start(graph, NOTHING, { threadId: "aborted", signal })).rejects.toThrow("too late");
  expect(await threadRow("aborted")).toBeUndefined();
});

it("says so when it is asked about a thread that does not exist", async () => {
  await using cs = await open([]);
  const missing = { code: "THREAD_NOT_FOUND" };
  await expect(cs.result("nobody")).rejects.toMatchObject(missing);
  await expect(cs.drive("nobody")).rejects.toMatchObject(missing);
  await expect(cs.retry("nobody")).rejects.toMatchObject(missing);
  await expect(cs.cancel("nobody", { by: MIA })).rejects.toMatchObject(missing);
  await expect(cs.state("nobody")).rejects.toMatchObject(missing);
  await expect(cs.events("nobody").next()).rejects.toMatchObject(missing);
  await expect(cs.sendEvent("nobody", { name: "go", eventId: "1" })).rejects.toMatchObject(missing);
});

// Recovering

it("takes over a thread whose driver died, and refuses whatever the dead one still writes", async () => {
  const held = gate();
  let calls = 0;
  const graph = stepsOf({
    one: async () => {},
    two: async () => {
      calls++;
      if (calls > 1) return "second driver";
      await held.pass();
      return "zombie";
    },
    three: async () => {},
  });
  await using zombie = await open([graph]);
  await using cs = await open([graph]);
  const threadId = uniqueName("thread");
  const starting = zombie.start(graph, NOTHING, { threadId });
  await held.reached();
  await cs.work({ until: "idle" });
  expect(calls).toBe(1);
  await later(PAST_LEASE_MS);
  await cs.work({ until: "idle" });
  const { rows: before } = await pool.query("select from countersign.checkpoints where thread_id = $1", [threadId]);
  held.open();
  expect(await starting).toMatchObject({ status: "completed" });

  const { rows: after } = await pool.query("select from countersign.checkpoints where thread_id = $1", [threadId]);
  expect(after).toHaveLength(before.length);
  expect((await resultOf(cs, threadId)).output?.steps).toEqual(["one", "second driver", "three"]);
  expect(calls).toBe(2);
});

it("keeps the lease of a thread whose node runs for longer than a lease lasts", async () => {
  const held = gate();
  const graph = stepsOf({ slow: () => held.pass() });
  await using cs = await open([graph], { leaseMs: 150 });
  const threadId = uniqueName("thread");
  const starting = cs.start(graph, NOTHING, { threadId });
  await held.reached();
  const expiry = async () => (await threadRow(threadId)).lease_expires_at as Date;
  const first = await expiry();
  await vi.waitFor(async () => expect((await expiry()).getTime()).toBeGreaterThan(first.getTime() + 150));
  held.open();
  expect((await starting).status).toBe("completed");
  expect((await threadRow(threadId)).lease_token).toBe(1);
});

it("aborts a node whose thread another process has taken over", async () => {
  let reason: unknown;
  const started = gate();
  const graph = stepsOf({
    slow: async ({ signal }) => {
      if (reason !== undefined) return "second driver";
      reason = null;
      void started.pass();
      await new Promise<void>((resolve) => signal?.addEventListener("abort", () => resolve()));
      reason = signal?.reason;
    },
  });
  await using zombie = await open([graph], { leaseMs: 300 });
  await using cs = await open([graph]);
  const threadId = uniqueName("thread");
  const starting = zombie.start(graph, NOTHING, { threadId });
  await started.reached();
  // A heartbeat may renew the lease between the two: then time passes once more.
  await vi.waitFor(async () => {
    await later(PAST_LEASE_MS);
    await cs.work({ until: "idle" });
    expect(await stepsTaken(cs, threadId)).toEqual(["second driver"]);
  }, 20_000);
  await starting;
  await vi.waitFor(() => expect(reason).toMatchObject({ code: "LEASE_LOST" }));
});

it("aborts a node whose thread its own process has taken over, as after a long pause", async () => {
  const reasons: unknown[] = [];
  const started = gate();
  let drives = 0;
  const graph = stepsOf({
    slow: async ({ signal }) => {
      if (++drives > 1) return "second drive";
      void started.pass();
      await new Promise<void>((resolve) => signal?.addEventListener("abort", () => resolve()));
      reasons.push(signal?.reason);
    },
  });
  await using cs = await open([graph]);
  const threadId = uniqueName("thread");
  const starting = cs.start(graph, NOTHING, { threadId });
  await started.reached();
  await later(PAST_LEASE_MS);
  await cs.work({ until: "idle" });
  await starting;
  expect(reasons).toMatchObject([{ code: "LEASE_LOST" }]);
  expect(await stepsTaken(cs, threadId)).toEqual(["second drive"]);
});

it("goes on from the step that failed, once its cause is mended and somebody asks for that", async () => {
  const calls: string[] = [];
  let mended = false;
  const graph = stepsOf({
    one: async () => void calls.push("one"),
    two: async () => {
      calls.push("two");
      if (!mended) throw Object.assign(new Error("no such customer"), { code: "E_CUSTOMER" });
    },
    three: async () => void calls.push("three"),
  });
  await using cs = await open([graph]);
  const run = await cs.start(graph, NOTHING);
  expect(run).toMatchObject({ status: "failed", error: { code: "E_CUSTOMER", message: "no such customer" } });
  const refused = { code: "THREAD_FAILED", facts: { error: "E_CUSTOMER" } };
  await expect(cs.result(run.threadId)).rejects.toMatchObject(refused);
  await cs.work({ until: "idle" });
  expect(calls).toEqual(["one", "two"]);

  mended = true;
  await cs.retry(run.threadId);
  await cs.work({ until: "idle" });
  expect((await resultOf(cs, run.threadId)).output?.steps).toEqual(["one", "two", "three"]);
  expect(calls).toEqual(["one", "two", "two", "three"]);
  await expect(cs.retry(run.threadId)).rejects.toMatchObject({ code: "THREAD_STATE" });
  const rows = await cs.audit.list(run.threadId);
  expect(rows.map((row) => [row.action, row.reasonCode])).toEqual([
    ["thread.started", null],
    // The code is the graph's own word, and may say too much for an audit trail.
    ["thread.failed", "GRAPH_ERROR"],
    ["thread.retried", null],
    ["thread.completed", null],
  ]);
});

it("shares 40 threads between two processes, and drives each once", async () => {
  const ran: string[] = [];
  const both = gate();
  const taking = new Set<string>();
  const name = uniqueName("shared");
  const graphOfProcess = (process: string) =>
    defineGraph({
      name,
      version: 1,
      durability: "durable",
      graph: builderOf({
        wait: () => sleep(1_000),
        after: async ({ configurable }) => {
          ran.push(configurable?.thread_id);
          // No thread ends before both processes drive one, so that both take part.
          if (taking.add(process).size === 2) both.open();
          await both.opened;
        },
      }),
    });
  const [graph, sameGraph] = [graphOfProcess("one"), graphOfProcess("two")];
  const stop = new AbortController();
  await using one = await open([graph], { pollIntervalMs: 20 });
  await using two = await open([sameGraph], { pollIntervalMs: 20 });
  const ids = Array.from({ length: 40 }, () => uniqueName("thread"));
  await Promise.all(ids.map((threadId) => one.start(graph, NOTHING, { threadId })));
  await later(1_000);
  const working = [one, two].map((cs) => cs.work({ signal: stop.signal }));
  for (const threadId of ids) expect((await resultOf(two, threadId)).status).toBe("completed");
  stop.abort();
  await Promise.all(working);
  expect(ran.sort()).toEqual(ids.sort());
});

it("passes over a thread that another process is just claiming", async () => {
  const graph = stepsOf({ wait: () => sleep(1_000), after: async () => {} });
  await using cs = await open([graph]);
  const [claimed, free] = [uniqueName("thread"), uniqueName("thread")];
  for (const threadId of [claimed, free]) await cs.start(graph, NOTHING, { threadId });
  await later(1_000);
  // Ends the timers; then the row is locked, as in the middle of a claim.
  await pool.query(`update countersign.execution_intents set status = 'succeeded' where thread_id = any($1)`, [
    [claimed, free],
  ]);
  const other = await pool.connect();
  await other.query("begin");
  await other.query("select from countersign.threads where thread_id = $1 for no key update", [claimed]);
  await cs.work({ until: "idle" });
  const statuses = [(await threadRow(claimed)).status, (await threadRow(free)).status];
  await other.query("rollback");
  other.release();
  expect(statuses).toEqual(["ready", "completed"]);
  await cs.work({ until: "idle" });
  expect((await resultOf(cs, claimed)).status).toBe("completed");
});

it("drives no more threads at once than it was told to", async () => {
  let atOnce = 0;
  let most = 0;
  const two = gate();
  const graph = stepsOf({
    wait: () => sleep(1_000),
    busy: async () => {
      atOnce++;
      most = Math.max(most, atOnce);
      if (atOnce === 2) two.open();
      await two.opened;
      await pool.query("select 1");
      atOnce--;
    },
  });
  await using cs = await open([graph], { maxConcurrentDrives: 2, pollIntervalMs: 60_000 });
  const ids = Array.from({ length: 6 }, () => uniqueName("thread"));
  await Promise.all(ids.map((threadId) => cs.start(graph, NOTHING, { threadId })));
  await later(1_000);
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  for (const threadId of ids) await resultOf(cs, threadId);
  stop.abort();
  await working;
  expect(most).toBe(2);
});

// Watching

it("tells what happens on a thread, from its start and live, until it ends", async () => {
  const send = effect({ ...NEEDS_MANAGER, execute: async () => ({ ref: "r" }) });
  const graph = graphOf(send);
  await using cs = await open([graph]);
  const stop = new AbortController();
  const working = cs.work({ signal: stop.signal });
  const { threadId } = await cs.start(graph, { n: 1 });
  const told: [number, string][] = [];
  for await (const row of cs.events(threadId)) {
    told.push([row.seq, row.action]);
    if (row.action === "intent.recorded") {
      const [asked] = await cs.pending({ threadId });
      await cs.approve(asked?.id ?? "", { by: MIA, digest: asked?.digest ?? "" });
    }
  }
  stop.abort();
  await working;
  const actions = ["decision.approved", "intent.claimed", "intent.succeeded", "thread.completed"];
  expect(told).toEqual(["thread.started", "intent.recorded", ...actions].map((action, i) => [i + 1, action]));
});

it("stops waiting for a result, telling events and working when its signal aborts", async () => {
  const graph = stepsOf({ ask: () => requestDecision({ name: "go-on", payload: {} }) });
  await using cs = await open([graph], { pollIntervalMs: 60_000 });
  const { threadId } = await cs.start(graph, NOTHING);
  const stop = new AbortController();
  const { signal } = stop;
  const told: string[] = [];
  const waiting = [
    cs.result(threadId, { signal }),
    cs.work({ signal }),
    (async () => {
      for await (const row of cs.events(threadId, { signal })) told.push(row.action);
    })(),
  ];
  const settled = Promise.allSettled(waiting);
  stop.abort(new Error("enough"));
  expect(await settled).toMatchObject([
    { status: "rejected", reason: { message: "enough" } },
    { status: "fulfilled" },
    { status: "fulfilled" },
  ]);
  await expect(cs.result(threadId, { signal })).rejects.toThrow("enough");
});

it("answers a result at once when another process ends the thread, however seldom it polls", async () => {
  const graph = stepsOf({ wait: () => waitForEvent("go") });
  await using cs = await open([graph], { pollIntervalMs: 60_000 });
  await using other = await open([graph]);
  const { threadId } = await cs.start(graph, NOTHING);
  const result = resultOf(cs, threadId);
  await other.sendEvent(threadId, { name: "go", eventId: "1" });
  await other.work({ until: "idle" });
  expect((await result).status).toBe("completed");
});

// Streaming

async function drain<Chunk, End>(stream: AsyncGenerator<Chunk, End>): Promise<{ chunks: Chunk[]; run: End }> {
  const chunks: Chunk[] = [];
  for (;;) {
    const next = await stream.next();
    if (next.done) return { chunks, run: next.value };
    chunks.push(next.value);
  }
}

const twoSteps = (durability?: Durability) =>
  stepsOf({ one: async () => {}, two: async ({ writer }) => writer?.({ half: true }) }, durability);

it.each(["durable", "async", "exit"] as const)(
  "streams what LangGraph streams from an '%s' graph",
  async (durability) => {
    const graph = twoSteps(durability);
    await using cs = await open([graph]);
    const of = async (streamMode: string | string[]) => (await drain(cs.stream(graph, NOTHING, { streamMode }))).chunks;
    const updates = [{ one: { steps: ["one"] } }, { two: { steps: ["two"] } }];
    expect(await of("updates")).toEqual(updates);
    expect(await of("values")).toEqual([NOTHING, { steps: ["one"] }, { steps: ["one", "two"] }]);
    expect(await of("custom")).toEqual([{ half: true }]);
    expect(await of(["updates", "custom"])).toEqual([
      ["updates", updates[0]],
      ["custom", { half: true }],
      ["updates", updates[1]],
    ]);
  },
);

it.each(["durable", "async", "exit"] as const)("ends the stream of an '%s' graph with its run", async (durability) => {
  const graph = twoSteps(durability);
  await using cs = await open([graph]);
  for (const streamMode of ["updates", "values"]) {
    const { run } = await drain(cs.stream(graph, NOTHING, { streamMode }));
    expect(run).toMatchObject({ status: "completed", output: { steps: ["one", "two"] }, error: null });
  }
});

it.each(["durable", "exit"] as const)(
  "streams a model's tokens from an '%s' graph as they come",
  async (durability) => {
    const model = new FakeListChatModel({ responses: ["Dear Ada"] });
    const graph = stepsOf({ write: async () => (await model.invoke([new HumanMessage("write")])).text }, durability);
    await using cs = await open([graph]);
    const { chunks, run } = await drain(cs.stream(graph, NOTHING, { streamMode: "messages" }));
    const tokens = chunks as [BaseMessage, { langgraph_node: string }][];
    expect(tokens.length).toBeGreaterThanOrEqual("Dear Ada".length);
    expect(tokens.map(([message]) => message.text).join("")).toBe("Dear Ada");
    expect(new Set(tokens.map(([, metadata]) => metadata.langgraph_node))).toEqual(new Set(["write"]));
    expect(run.output).toEqual({ steps: ["Dear Ada"] });
  },
);

it("passes chunks on while the graph still runs", async () => {
  const held = gate();
  const graph = stepsOf({ one: async () => {}, two: () => held.pass() });
  await using cs = await open([graph]);
  const stream = cs.stream(graph, NOTHING, { streamMode: "updates" });
  expect(await stream.next()).toMatchObject({ value: { one: { steps: ["one"] } } });
  held.open();
  expect((await drain(stream)).run.status).toBe("completed");
});

it("streams what subgraphs do, too, each chunk with its namespace", async () => {
  const inner = builderOf({ deep: async () => {} }).compile();
  const graph = defineGraph({
    name: uniqueName("outer"),
    version: 1,
    durability: "durable",
    graph: new StateGraph(State).addNode("inner", inner).addEdge(START, "inner").addEdge("inner", END),
  });
  await using cs = await open([graph]);
  const one = await drain(cs.stream(graph, NOTHING, { streamMode: "updates", subgraphs: true }));
  expect(one.chunks).toEqual([
    [[expect.stringMatching(/^inner:/)], { deep: { steps: ["deep"] } }],
    [[], { inner: { steps: ["deep"] } }],
  ]);
  expect(one.run.output).toEqual({ steps: ["deep"] });
  const modes = await drain(cs.stream(graph, NOTHING, { streamMode: ["updates", "values"], subgraphs: true }));
  expect(modes.chunks).toContainEqual([[expect.stringMatching(/^inner:/)], "updates", { deep: { steps: ["deep"] } }]);
  expect(modes.run.output).toEqual({ steps: ["deep"] });
});

it("streams the rest of a thread that is ready again", async () => {
  const graph = stepsOf({
    ask: async () => (await requestDecision({ name: "go-on", payload: {} })).status,
    after: async () => {},
  });
  await using cs = await open([graph]);
  const begun = await drain(cs.stream(graph, NOTHING, { streamMode: "updates" }));
  const { threadId, pending } = begun.run;
  expect(begun.run.status).toBe("waiting");
  const asleep = await drain(cs.stream(threadId, { streamMode: "updates" }));
  expect(asleep).toMatchObject({ chunks: [], run: { status: "waiting" } });

  await cs.approve(pending[0]?.id ?? "", { by: MIA, digest: pending[0]?.digest ?? "" });
  const rest = await drain(cs.stream(threadId, { streamMode: "updates" }));
  expect(rest.chunks).toEqual([{ ask: { steps: ["approved"] } }, { after: { steps: ["after"] } }]);
  expect(rest.run.status).toBe("completed");
});

it("lets a thread go on when nobody reads its stream any more", async () => {
  const graph = stepsOf({ one: async () => {}, two: async () => {}, three: async () => {} });
  await using cs = await open([graph]);
  const threadId = uniqueName("thread");
  for await (const _chunk of cs.stream(graph, NOTHING, { streamMode: "updates", threadId })) break;
  expect((await resultOf(cs, threadId)).output?.steps).toEqual(["one", "two", "three"]);
});

it("ends the stream of a graph that fails with how it stands", async () => {
  const graph = stepsOf({ one: async () => {}, two: () => Promise.reject(new Error("no")) });
  await using cs = await open([graph]);
  const { chunks, run } = await drain(cs.stream(graph, NOTHING, { streamMode: "updates" }));
  expect(chunks).toEqual([{ one: { steps: ["one"] } }]);
  expect(run).toMatchObject({ status: "failed", error: { message: "no" } });
});

// What LangGraph gives a run

it("hands the context of a start to every drive of its thread, in whatever process", async () => {
  const seen: unknown[] = [];
  const graph = stepsOf({
    one: async ({ context }) => void seen.push(context),
    wait: () => waitForEvent("go"),
    two: async ({ context }) => void seen.push(context),
  });
  await using one = await open([graph]);
  await using two = await open([graph]);
  const { threadId } = await one.start(graph, NOTHING, { context: { tenant: "acme", limits: [1, 2] } });
  await two.sendEvent(threadId, { name: "go", eventId: "1" });
  await two.work({ until: "idle" });
  expect(seen).toEqual([
    { tenant: "acme", limits: [1, 2] },
    { tenant: "acme", limits: [1, 2] },
  ]);
});

it.each(["durable", "async", "exit"] as const)("hands the store and callbacks to an '%s' graph", async (durability) => {
  const store = new InMemoryStore();
  const nodes: unknown[] = [];
  const graph = stepsOf(
    { note: ({ store: given }) => given?.put(["notes"], durability, { kept: true }) as Promise<void> },
    durability,
  );
  await using cs = await open([graph], { store });
  const handleChainStart = (...args: unknown[]) => void nodes.push(args[7]);
  const run = await cs.start(graph, NOTHING, { callbacks: [{ handleChainStart }] });
  expect(run).toMatchObject({ status: "completed", error: null });
  expect((await store.get(["notes"], durability))?.value).toEqual({ kept: true });
  expect(nodes).toContain("note");
});

it("fails a thread that takes more steps than its recursionLimit, and keeps that limit for its retry", async () => {
  const State = Annotation.Root({ count: Annotation<number> });
  const graph = defineGraph({
    name: uniqueName("loop"),
    version: 1,
    durability: "durable",
    graph: new StateGraph(State)
      .addNode("again", (state) => ({ count: state.count + 1 }))
      .addEdge(START, "again")
      .addConditionalEdges("again", () => "again", ["again"]),
  });
  await using cs = await open([graph]);
  const run = await cs.start(graph, { count: 0 }, { recursionLimit: 4 });
  expect(run).toMatchObject({ status: "failed", error: { code: "GRAPH_RECURSION_LIMIT" } });
  const counted = async () => ((await cs.state(run.threadId)).values as { count: number }).count;
  expect(await counted()).toBeLessThanOrEqual(5);
  await cs.retry(run.threadId);
  await cs.work({ until: "idle" });
  await expect(cs.result(run.threadId)).rejects.toMatchObject({ facts: { error: "GRAPH_RECURSION_LIMIT" } });
  // LangGraph's own limit, 25, would have let it go further.
  expect(await counted()).toBeLessThan(15);
});

// Exit and async

async function rowsInAllTables(): Promise<Record<string, number>> {
  const { rows } = await pool.query(
    "select table_name from information_schema.tables where table_schema = 'countersign'",
  );
  const counts = rows.map(async ({ table_name }) => {
    const { rows: found } = await pool.query(`select count(*)::int as n from countersign.${table_name}`);
    return [table_name, found[0].n];
  });
  return Object.fromEntries(await Promise.all(counts));
}

it("runs an exit graph without a row in any table", async () => {
  const graph = twoSteps("exit");
  await using cs = await open([graph]);
  const before = await rowsInAllTables();
  const run = await cs.start(graph, NOTHING, { threadId: "leaves-no-trace" });
  await cs.work({ until: "idle" });
  expect(run).toMatchObject({ status: "completed", output: { steps: ["one", "two"] }, pending: [] });
  expect(await rowsInAllTables()).toEqual(before);
  expect(Object.keys(before)).toContain("checkpoints");
  await expect(cs.result("leaves-no-trace")).rejects.toMatchObject({ code: "THREAD_NOT_FOUND" });
});

it("lets the error of an exit graph reach its caller", async () => {
  const graph = stepsOf({ one: () => Promise.reject(new TypeError("no")) }, "exit");
  await using cs = await open([graph]);
  await expect(cs.start(graph, NOTHING)).rejects.toThrow(TypeError);
  await expect(drain(cs.stream(graph, NOTHING, { streamMode: "updates" }))).rejects.toThrow(TypeError);
});

it("refuses an async graph that does not say what may be lost", () => {
  const declare = (lossWindow: string | undefined) =>
    defineGraph({
      name: "loses",
      version: 1,
      durability: "async",
      lossWindow,
      graph: builderOf({ one: async () => {} }),
    } as never);
  expect(() => declare(undefined)).toThrow(expect.objectContaining({ code: "DEFINITION_INVALID" }));
  expect(() => declare("  ")).toThrow(/lossWindow/);
});

it("does not wait for the checkpoints of an async graph, and reports how far they lagged behind", async () => {
  const LAG_MS = 30;
  const threadId = uniqueName("thread");
  const blocker = await pool.connect();
  let persisted: number | undefined;
  const graph = stepsOf(
    {
      one: async () => {
        await blocker.query("begin");
        await blocker.query("select from countersign.threads where thread_id = $1 for update", [threadId]);
      },
      two: async () => {
        for (const until = performance.now() + LAG_MS; performance.now() < until; ) await pool.query("select 1");
        const { rows } = await pool.query("select from countersign.checkpoints where thread_id = $1", [threadId]);
        persisted = rows.length;
        await blocker.query("commit");
      },
    },
    "async",
  );
  await using cs = await open([graph]);
  const run = await cs.start(graph, NOTHING, { threadId });
  blocker.release();
  expect(run).toMatchObject({ status: "completed", output: { steps: ["one", "two"] } });
  // The input's and that before the first step, not that after it.
  expect(persisted).toBeLessThanOrEqual(2);
  expect(run.persistLagMs).toBeGreaterThanOrEqual(LAG_MS);
});

it("calls an async thread lost when its driver dies, audits that, and goes on from the last checkpoint if asked", async () => {
  const calls: string[] = [];
  const held = gate();
  const graph = stepsOf(
    {
      one: async () => void calls.push("one"),
      two: async () => {
        calls.push("two");
        if (calls.length > 2) return "second driver";
        await held.pass();
        return "zombie";
      },
    },
    "async",
  );
  await using zombie = await open([graph]);
  await using cs = await open([graph]);
  const threadId = uniqueName("thread");
  const starting = zombie.start(graph, NOTHING, { threadId });
  await held.reached();
  await vi.waitFor(async () => expect(await stepsTaken(cs, threadId)).toEqual(["one"]));
  await later(PAST_LEASE_MS);
  await cs.work({ until: "idle" });
  await expect(cs.result(threadId)).rejects.toMatchObject({ code: "THREAD_FAILED", facts: { error: "DRIVER_LOST" } });
  expect((await cs.audit.list(threadId)).at(-1)).toMatchObject({ action: "thread.lost", reasonCode: "DRIVER_LOST" });

  await cs.retry(threadId);
  await cs.work({ until: "idle" });
  held.open();
  await starting;
  expect(calls).toEqual(["one", "two", "two"]);
  expect((await resultOf(cs, threadId)).output?.steps).toEqual(["one", "second driver"]);
  expect(await stepsTaken(cs, threadId)).toEqual(["one", "second driver"]);
});

// Closing

/** Long enough for somebody who does not wait to be seen not to. */
async function aWhile(): Promise<void> {
  for (let i = 0; i < 30; i++) await pool.query("select 1");
}

it("waits, when it closes, for what it has begun", async () => {
  const inNode = gate();
  const inHandler = gate();
  const aborted: boolean[] = [];
  const drives = stepsOf({
    slow: async ({ signal }) => {
      await inNode.pass();
      aborted.push(signal?.aborted ?? true);
    },
  });
  const carries = graphOf(
    effect({
      execute: async (_input, { signal }) => {
        await inHandler.pass();
        aborted.push(signal.aborted);
        return { ref: "r" };
      },
    }),
  );
  const cs = await open([drives, carries]);
  await using other = await open([drives, carries]);
  const { threadId } = await cs.start(carries, { n: 1 });
  const busy = [cs.work(), cs.start(drives, NOTHING, { threadId: "drained" })];
  await Promise.all([inNode.reached(), inHandler.reached()]);
  const closing = cs.close();
  inNode.open();
  inHandler.open();
  await closing;
  expect(aborted).toEqual([false, false]);
  expect((await threadRow("drained")).status).toBe("completed");
  expect((await other.intents(threadId))[0]?.status).toBe("succeeded");
  await Promise.all(busy);
});

it("aborts, when its time to close is over, what still runs, and another process goes on", async () => {
  const inNode = gate();
  const inHandler = gate();
  let first = true;
  const untilAborted = (signal: AbortSignal | undefined) =>
    new Promise<never>((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
  const drives = stepsOf({
    slow: async ({ signal }) => {
      if (!first) return;
      void inNode.pass();
      await untilAborted(signal);
    },
  });
  const execute = async (_input: unknown, { signal }: { signal: AbortSignal }) => {
    if (!first) return { ref: "second" };
    void inHandler.pass();
    return untilAborted(signal);
  };
  const carries = graphOf(effect({ execute }));
  const cs = await open([drives, carries]);
  await using other = await open([drives, carries]);
  const { threadId } = await cs.start(carries, { n: 1 });
  const busy = [cs.work(), cs.start(drives, NOTHING, { threadId: "handed-over" })];
  await Promise.all([inNode.reached(), inHandler.reached()]);
  await cs.close({ timeoutMs: 10 });
  await Promise.all(busy);
  first = false;
  // A thread is given back at once; a handler may have done its work, so its lease runs out first.
  expect(await other.drive("handed-over")).toBe("completed");
  await later(PAST_LEASE_MS);
  await other.work({ until: "idle" });
  expect((await other.intents(threadId))[0]).toMatchObject({ status: "succeeded", output: { ref: "second" } });
});

it("does not carry on, once it is closed, with the work that it does until idle", async () => {
  let calls = 0;
  const held = gate();
  const busy = effect({
    execute: async () => {
      calls++;
      await held.pass();
      return { ref: "r" };
    },
  });
  const graph = manyOf(busy);
  const cs = await open([graph], { backend: postgres({ concurrency: 1 }) });
  await using other = await open([graph]);
  const { threadId } = await cs.start(graph, { count: 3 });
  const working = cs.work({ until: "idle" });
  await held.reached();
  const closing = cs.close();
  held.open();
  await Promise.all([closing, working]);
  expect(calls).toBe(1);
  const statuses = (await other.intents(threadId)).map((intent) => intent.status).sort();
  expect(statuses).toEqual(["runnable", "runnable", "succeeded"]);
});

/** Closes a handle on a pool of its own at the instant at which it is claiming the thread's only intent. */
async function closeDuringClaim(graph: AnyGraph, timeoutMs: number) {
  const cs = await open([graph], { database: url });
  const { threadId } = await cs.start(graph, { n: 1 });
  // The claim has to wait for the thread's audit chain.
  const blocker = await pool.connect();
  await blocker.query("begin");
  await blocker.query("select from countersign.audit_chains where thread_id = $1 for update", [threadId]);
  const working = cs.work();
  await vi.waitFor(async () => {
    const { rows } = await pool.query(
      "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
    );
    expect(rows).toHaveLength(1);
  });
  const closing = cs.close({ timeoutMs });
  await blocker.query("commit");
  blocker.release();
  await Promise.all([closing, working]);
  const { rows } = await pool.query("select status from countersign.execution_intents where thread_id = $1", [
    threadId,
  ]);
  return rows[0].status as string;
}

it("records the outcome of what it was claiming when it was closed", async () => {
  let calls = 0;
  const graph = graphOf(
    effect({
      execute: async () => {
        calls++;
        await aWhile();
        return { ref: "r" };
      },
    }),
  );
  const status = await closeDuringClaim(graph, 10_000);
  expect([calls, status]).toEqual(calls === 0 ? [0, "runnable"] : [1, "succeeded"]);
});

it("closes in its time, also when what it was claiming does not end", async () => {
  const graph = graphOf(effect({ execute: () => new Promise(() => {}) }));
  const started = performance.now();
  await closeDuringClaim(graph, 10);
  expect(performance.now() - started).toBeLessThan(8_000);
});

it("leaves a node behind that ignores the signal, and refuses what it writes later", async () => {
  const deaf = gate();
  let calls = 0;
  const graph = stepsOf({
    wait: async () => (await waitForEvent("go")).status,
    deaf: async () => {
      calls++;
      if (calls > 1) return "second process";
      await deaf.pass();
      return "zombie";
    },
  });
  const cs = await open([graph]);
  await using other = await open([graph]);
  const { threadId } = await cs.start(graph, NOTHING);
  const working = cs.work();
  await cs.sendEvent(threadId, { name: "go", eventId: "1" });
  await deaf.reached();
  const started = performance.now();
  await cs.close({ timeoutMs: 10 });
  await working;
  expect(performance.now() - started).toBeLessThan(5_000);
  await later(PAST_LEASE_MS);
  await other.work({ until: "idle" });
  deaf.open();
  await aWhile();
  expect(await stepsTaken(other, threadId)).toEqual(["received", "second process"]);
});

it("waits, when it closes without a limit, for as long as it takes", async () => {
  const held = gate();
  const graph = graphOf(effect({ execute: () => held.pass().then(() => ({ ref: "r" })) }));
  const cs = await open([graph]);
  await using other = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  const working = cs.work();
  await held.reached();
  const closing = cs.close({ timeoutMs: Number.POSITIVE_INFINITY });
  await aWhile();
  held.open();
  await Promise.all([closing, working]);
  expect((await other.intents(threadId))[0]?.status).toBe("succeeded");
});

it("has recorded what its worker began when work() resolves", async () => {
  const held = gate();
  const stop = new AbortController();
  const graph = graphOf(effect({ execute: () => held.pass().then(() => ({ ref: "r" })) }));
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  const status = cs.work({ signal: stop.signal }).then(async () => (await cs.intents(threadId))[0]?.status);
  await held.reached();
  stop.abort();
  await aWhile();
  held.open();
  expect(await status).toBe("succeeded");
});

const CALLS: [string, (cs: Countersign, graph: AnyGraph) => unknown][] = [
  ["start", (cs, graph) => cs.start(graph, NOTHING)],
  ["stream", (cs, graph) => cs.stream(graph, NOTHING, { streamMode: "values" }).next()],
  ["drive", (cs) => cs.drive("t")],
  ["retry", (cs) => cs.retry("t")],
  ["fork", (cs) => cs.fork("t", { checkpointId: "c" })],
  ["work", (cs) => cs.work()],
  ["result", (cs) => cs.result("t")],
  ["events", (cs) => cs.events("t").next()],
  ["state", (cs) => cs.state("t")],
  ["history", (cs) => cs.history("t").next()],
  ["pending", (cs) => cs.pending()],
  ["intent", (cs) => cs.intent("5f0a9b7d-2e1c-4a4f-8d63-6d2f3a1e8c4b")],
  ["intents", (cs) => cs.intents("t")],
  ["approve", (cs) => cs.approve("5f0a9b7d-2e1c-4a4f-8d63-6d2f3a1e8c4b", { by: MIA, digest: "" })],
  ["edit", (cs) => cs.edit("5f0a9b7d-2e1c-4a4f-8d63-6d2f3a1e8c4b", {}, { by: MIA, digest: "" })],
  ["reject", (cs) => cs.reject("5f0a9b7d-2e1c-4a4f-8d63-6d2f3a1e8c4b", { by: MIA })],
  ["complete", (cs) => cs.complete({ intentId: "5f0a9b7d-2e1c-4a4f-8d63-6d2f3a1e8c4b" }, { output: {} })],
  ["fail", (cs) => cs.fail({ intentId: "5f0a9b7d-2e1c-4a4f-8d63-6d2f3a1e8c4b" }, { reason: "no" })],
  ["sendEvent", (cs) => cs.sendEvent("t", { name: "go", eventId: "1" })],
  ["cancelIntent", (cs) => cs.cancelIntent("5f0a9b7d-2e1c-4a4f-8d63-6d2f3a1e8c4b", { by: MIA })],
  ["cancel", (cs) => cs.cancel("t", { by: MIA })],
  ["replay", (cs) => cs.replay("5f0a9b7d-2e1c-4a4f-8d63-6d2f3a1e8c4b", { by: MIA })],
  ["audit.list", (cs) => cs.audit.list("t")],
  ["audit.verify", (cs) => cs.audit.verify()],
];

it.each(CALLS)("refuses %s() once it is closed, whose ever the pool is", async (_name, call) => {
  const graph = stepsOf({ one: async () => {} });
  for (const database of [url, pool]) {
    const cs = await open([graph], { database });
    await cs.close();
    await expect((async () => call(cs, graph))()).rejects.toMatchObject({ code: "CLOSED" });
  }
});

it("closes at the end of its block, once, and leaves the caller's pool open", async () => {
  const graph = stepsOf({ one: async () => {} });
  let kept: Countersign | undefined;
  {
    await using cs = await open([graph]);
    kept = cs;
  }
  await expect(kept.start(graph, NOTHING)).rejects.toMatchObject({ code: "CLOSED" });
  await kept.close();
  expect((await pool.query("select 1 as one")).rows).toEqual([{ one: 1 }]);
});

it("lets whoever waits for a result or works know that it was closed", async () => {
  const graph = stepsOf({ ask: () => requestDecision({ name: "go-on", payload: {} }) });
  const cs = await open([graph], { pollIntervalMs: 60_000 });
  const { threadId } = await cs.start(graph, NOTHING);
  const settled = Promise.allSettled([cs.result(threadId), cs.work()]);
  await cs.close();
  expect(await settled).toMatchObject([{ status: "rejected", reason: { code: "CLOSED" } }, { status: "fulfilled" }]);
});

// Cancelling

it("cancels a thread: nobody is asked any more, and nothing of it runs", async () => {
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
  const [asked] = run.pending;
  await cs.cancel(run.threadId, { by: MIA });
  expect(await cs.pending({ threadId: run.threadId })).toEqual([]);
  const late = cs.approve(asked?.id ?? "", { by: MIA, digest: asked?.digest ?? "" });
  await expect(late).rejects.toMatchObject({ code: "INTENT_ENDED" });
  await cs.work({ until: "idle" });
  expect(calls).toBe(0);
  expect(await resultOf(cs, run.threadId)).toMatchObject({ status: "cancelled", output: undefined });
  await expect(cs.cancel(run.threadId, { by: MIA })).rejects.toMatchObject({ code: "THREAD_STATE" });
  await expect(cs.retry(run.threadId)).rejects.toMatchObject({ code: "THREAD_STATE" });
  const actions = (await cs.audit.list(run.threadId)).map((row) => row.action);
  expect(actions.slice(2)).toEqual(["intent.cancelled", "thread.cancelled"]);
});

it("says in the audit trail who cancelled a thread", async () => {
  const graph = stepsOf({ wait: () => waitForEvent("go") });
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, NOTHING);
  await cs.cancel(threadId, { by: MIA });
  const row = (await cs.audit.list(threadId)).find(({ action }) => action === "thread.cancelled");
  expect(row).toMatchObject({ actorType: "human", actorId: "mia" });
});

it("records nothing more of a thread that is cancelled while a node of it runs", async () => {
  const held = gate();
  const send = effect({ execute: async () => ({ ref: "r" }) });
  const graph = defineGraph({
    name: uniqueName("cancelled"),
    version: 1,
    durability: "durable",
    commitments: [send],
    graph: builderOf({
      slow: () => held.pass(),
      act: async () => (await commit(send, { n: 1 })).status,
    }),
  });
  await using cs = await open([graph]);
  const threadId = uniqueName("thread");
  const starting = cs.start(graph, NOTHING, { threadId });
  await held.reached();
  await cs.cancel(threadId, { by: MIA });
  held.open();
  expect((await starting).status).toBe("cancelled");
  expect(await cs.intents(threadId)).toEqual([]);
  expect(await stepsTaken(cs, threadId)).toEqual([]);
});

it("asks the effects of a cancelled thread to stop, and does not send them again", async () => {
  let calls = 0;
  let reason: unknown;
  const running = gate();
  const slow = effect({
    retry: { initialIntervalMs: 0 },
    execute: (_input, { signal }) =>
      new Promise((_, reject) => {
        calls++;
        signal.addEventListener("abort", () => {
          reason = signal.reason;
          reject(new Error("stopped"));
        });
        void running.pass();
      }),
  });
  const graph = graphOf(slow);
  await using worker = await open([graph]);
  await using other = await open([graph]);
  const stop = new AbortController();
  const working = worker.work({ signal: stop.signal });
  const { threadId } = await other.start(graph, { n: 1 });
  await running.reached();
  await other.cancel(threadId, { by: MIA });
  await vi.waitFor(async () => expect((await other.intents(threadId))[0]?.status).toBe("cancelled"));
  stop.abort();
  await working;
  await other.work({ until: "idle" });
  expect(reason).toBeDefined();
  expect(calls).toBe(1);
  expect((await resultOf(other, threadId)).status).toBe("cancelled");
});

// Options

it("refuses an option that it does not know, and names those that it knows", async () => {
  const misspelt = { pollIntervallMs: 5 } as Partial<CountersignOptions>;
  const refused = open([], misspelt);
  await expect(refused).rejects.toMatchObject({ code: "OPTION_INVALID" });
  await expect(refused).rejects.toThrow(/'pollIntervallMs'.*pollIntervalMs/);
});

it.each([
  ["no database", { database: undefined }],
  ["a number for a database", { database: 5432 }],
  ["no graphs", { graphs: undefined }],
  ["no backend", { backend: undefined }],
  ["a lease of no time", { leaseMs: 0 }],
  ["a poll interval that is a text", { pollIntervalMs: "1s" }],
  ["no drives at all", { maxConcurrentDrives: 0 }],
  ["a schema that is no identifier", { schema: "drop table" }],
])("refuses %s", async (_what, options) => {
  await expect(open([], options as Partial<CountersignOptions>)).rejects.toMatchObject({ code: "OPTION_INVALID" });
});

it("refuses two graphs, or two commitments, under one name and version", async () => {
  const twice = () => effect({ name: "twice", execute: async () => ({ ref: "r" }) });
  const graph = stepsOf({ one: async () => {} });
  await expect(open([graph, graph])).rejects.toMatchObject({ code: "DEFINITION_INVALID" });
  await expect(open([graphOf(twice()), graphOf(twice())])).rejects.toMatchObject({ code: "DEFINITION_INVALID" });
});

it("drives only graphs that it knows, and says so when it is to start another", async () => {
  const graph = stepsOf({ wait: () => waitForEvent("go") });
  await using cs = await open([graph]);
  await using stranger = await open([]);
  const { threadId } = await cs.start(graph, NOTHING);
  await stranger.sendEvent(threadId, { name: "go", eventId: "1" });
  await stranger.work({ until: "idle" });
  expect(await stranger.drive(threadId)).toBe("ready");
  await expect(stranger.start(graph, NOTHING)).rejects.toMatchObject({ code: "THREAD_STATE" });
  expect(await cs.drive(threadId)).toBe("completed");
});
