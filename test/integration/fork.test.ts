import { Annotation, END, Send, START, StateGraph } from "@langchain/langgraph";
import { describe, expect, it, vi } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { claimIntents } from "../../src/database/claims.ts";
import { insertCompensationStep, lockThreadIntents } from "../../src/database/compensation.ts";
import { postgresDatabase } from "../../src/database/postgres.ts";
import { claimThreads } from "../../src/database/threads.ts";
import { type AnyGraph, type Countersign, commit, countersign, defineGraph, requestDecision } from "../../src/index.ts";
import { moveClock } from "../../src/testing/clock.ts";
import { testDatabase } from "../support/database.ts";
import { PAST_LEASE_MS } from "../support/effects.ts";
import { approve, Log, mia, oneNode, scribe } from "../support/messenger.ts";
import { FREE, insertIntent } from "../support/rows.ts";

/* What a fork leaves behind when it cannot be done, and what it meets that came between. */

const { pool } = await testDatabase();
const database = postgresDatabase(pool, { schema: "countersign" });

const open = (graph: AnyGraph): Promise<Countersign> =>
  countersign({ database: pool, graphs: [graph], backend: postgres(), onError: () => {} });
const threadRow = async (threadId: string): Promise<Record<string, unknown>> =>
  (await pool.query("select * from countersign.threads where thread_id = $1", [threadId])).rows[0];
const somebodyWaits = (forWhat = "%") =>
  vi.waitFor(async () => {
    const text = `select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()
                  and wait_event like $1`;
    expect((await pool.query(text, [forWhat])).rowCount).toBe(1);
  });

/** Asks a person, and says what they said. */
const asking = () => oneNode(async () => ({ log: [(await requestDecision({ name: "go", payload: {} })).status] }));

async function firstCheckpoint(cs: Countersign, threadId: string): Promise<string> {
  let first = "";
  for await (const { checkpointId, next } of cs.history(threadId)) if (next[0] === "node") first = checkpointId;
  return first;
}

describe("a fork that fails", () => {
  it.each<[string, (cs: Countersign, threadId: string) => Promise<unknown>]>([
    ["waiting", async () => {}],
    [
      "ready",
      async (cs, threadId) => {
        for (const intent of await cs.pending({ threadId })) await approve(cs, intent);
      },
    ],
    [
      "completed",
      async (cs, threadId) => {
        for (const intent of await cs.pending({ threadId })) await approve(cs, intent);
        await cs.drive(threadId);
      },
    ],
    ["cancelled", (cs, threadId) => cs.cancel(threadId, { by: mia })],
  ])("leaves a thread that is %s as it was", async (status, arrange) => {
    const graph = asking();
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });
    await arrange(cs, threadId);
    const before = { thread: await threadRow(threadId), intents: await cs.intents(threadId) };
    expect(before.thread.status).toBe(status);
    const audited = await cs.audit.list(threadId);
    const checkpointId = await firstCheckpoint(cs, threadId);

    const fork = cs.fork(threadId, { checkpointId, values: { log: ["x"] }, asNode: "nobody" });

    await expect(fork).rejects.toThrow('Node "nobody" does not exist');
    expect({ thread: await threadRow(threadId), intents: await cs.intents(threadId) }).toEqual(before);
    expect(await cs.audit.list(threadId)).toEqual(audited);
  });
});

describe("a fork", () => {
  it("of a thread that has completed has no output until its new branch ends", async () => {
    const graph = asking();
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });
    for (const intent of await cs.pending({ threadId })) await approve(cs, intent);
    expect(await cs.drive(threadId)).toBe("completed");

    await cs.fork(threadId, { checkpointId: await firstCheckpoint(cs, threadId) });

    expect(await cs.drive(threadId)).toBe("waiting");
    expect(await threadRow(threadId)).toMatchObject({ output: null, output_type: null });
  });

  it("goes on from tasks that the given values fan out to", async () => {
    const Lists = Annotation.Root({ words: Annotation<string[]>, log: Log.spec.log });
    const graph = defineGraph({
      name: "fan-out",
      version: 1,
      durability: "durable",
      graph: new StateGraph(Lists)
        .addNode("node", async () => ({ words: ["one"] }))
        .addNode("say", async (word: unknown) => ({ log: [String(word)] }))
        .addEdge(START, "node")
        .addConditionalEdges("node", ({ words }) => words.map((word) => new Send("say", word)), ["say"])
        .addEdge("say", END),
    });
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, {});

    const checkpointId = await firstCheckpoint(cs, threadId);
    await cs.fork(threadId, { checkpointId, values: { words: ["two", "three"] }, asNode: "node" });

    expect((await cs.result<{ log: string[] }>(threadId)).output?.log).toEqual(["two", "three"]);
  });
});

describe("a fork from the start", () => {
  it("takes other input", async () => {
    const graph = oneNode(async ({ log }) => ({ log: [`heard ${log}`] }));
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: ["one"] });
    let start = "";
    for await (const { checkpointId } of cs.history(threadId)) start = checkpointId;

    await cs.fork(threadId, { checkpointId: start, values: { log: ["two"] }, asNode: "__input__" });

    expect((await cs.result<{ log: string[] }>(threadId)).output?.log).toEqual(["two", "heard two"]);
  });
});

describe("a fork that has to wait", () => {
  const refused = { code: "THREAD_STATE" };

  it("meets an effect that began to be undone meanwhile, and leaves it to its end", async () => {
    const { send } = scribe({ compensate: async () => {} });
    const graph = oneNode(async () => ({ log: [(await commit(send, { text: "a" })).status] }), [send]);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });
    await cs.work({ until: "idle" });
    const checkpointId = await firstCheckpoint(cs, threadId);

    let fork: Promise<unknown> | undefined;
    await database.transaction(async (tx) => {
      const [effect] = await lockThreadIntents(tx, threadId);
      fork = cs.fork(threadId, { checkpointId }).catch((error: unknown) => error);
      await somebodyWaits();
      await insertIntent({ query: (text: string, values: unknown[]) => tx.query({ text, values }) } as never, {
        ...{ ...FREE, thread_id: threadId, kind: "compensation", commitment: "countersign.compensation" },
        ...{ status: "awaiting_external", payload: JSON.stringify({ reason: "rejected" }), backend: null },
      });
      const request = (await lockThreadIntents(tx, threadId)).find(({ kind }) => kind === "compensation");
      if (effect === undefined || request === undefined) throw new Error("The rows are gone");
      await insertCompensationStep(tx, { effect, request });
    });

    const result = await fork;
    await cs.work({ until: "idle" });
    const ended = (await cs.intents(threadId)).map(({ kind, status }) => `${kind} ${status}`);
    expect(ended.sort()).toEqual(["compensation succeeded", "compensation succeeded", "effect compensated"]);
    expect(result).toMatchObject(refused);
  });

  it("meets an effect that was claimed meanwhile, and does not propose it again", async () => {
    const { send, calls } = scribe();
    const graph = oneNode(async () => ({ log: [(await commit(send, { text: "a" })).status] }), [send]);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });
    const checkpointId = await firstCheckpoint(cs, threadId);

    let fork: Promise<unknown> | undefined;
    await database.transaction(async (tx) => {
      const kinds = [{ workflowKey: send.workflowKey, slots: 1 }];
      await claimIntents(tx, { backend: "postgres", worker: "gone", kinds, limit: 1, leaseMs: 0 });
      fork = cs.fork(threadId, { checkpointId }).catch((error: unknown) => error);
      await somebodyWaits();
    });

    const result = await fork;
    await cs.work({ until: "idle" });
    expect(calls).toEqual(["a"]);
    expect(await cs.intents(threadId)).toMatchObject([{ status: "succeeded" }]);
    expect(result).toMatchObject(refused);
  });

  it("meets a driver that took the thread meanwhile, however long that was, and leaves it its intents", async () => {
    const graph = asking();
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });
    const checkpointId = await firstCheckpoint(cs, threadId);
    // There is news for the thread, of which its next driver makes nothing.
    await pool.query("update countersign.threads set status = 'ready' where thread_id = $1", [threadId]);

    let fork: Promise<unknown> | undefined;
    await database.transaction(async (tx) => {
      await tx.query({
        text: "select from countersign.execution_intents where thread_id = $1 for update",
        values: [threadId],
      });
      fork = cs.fork(threadId, { checkpointId }).catch((error: unknown) => error);
      await somebodyWaits();
      await moveClock(pool, { byMs: PAST_LEASE_MS });
      const graphs = [`${graph.name}@1`];
      const [claimed] = await claimThreads(database, { driver: "next", leaseMs: 60_000, graphs, limit: 1, threadId });
      expect(claimed).toMatchObject({ thread_id: threadId });
    });

    const result = await fork;
    expect(await cs.intents(threadId)).toMatchObject([{ status: "awaiting_decision" }]);
    expect(await threadRow(threadId)).toMatchObject({ status: "running", lease_owner: "next" });
    expect(result).toMatchObject(refused);
  });

  it("meets an effect that was recorded and claimed while it took its locks, and leaves it to its end", async () => {
    const graph = asking();
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });
    const checkpointId = await firstCheckpoint(cs, threadId);
    const recorder = await pool.connect();
    await recorder.query("begin");
    await recorder.query("select from countersign.threads where thread_id = $1 for no key update", [threadId]);
    const fork = cs.fork(threadId, { checkpointId }).catch((error: unknown) => error);
    await somebodyWaits();
    // It holds the locks of the intents that it saw. From here on it stands before each change of its thread.
    const id = await insertIntent(recorder, { ...FREE, thread_id: threadId, status: "runnable", backend: "raw" });
    const KEY = 4_712;
    await pool.query(`create function pause() returns trigger language plpgsql as
      $$ begin perform pg_advisory_xact_lock(${KEY}); return new; end $$`);
    await recorder.query("select pg_advisory_lock($1)", [KEY]);
    await recorder.query(
      "create trigger pause before update on countersign.threads for each row execute function pause()",
    );
    await recorder.query("commit");
    await somebodyWaits("advisory");

    const kinds = [{ workflowKey: "mail.send@1", slots: 1 }];
    await claimIntents(database, { backend: "raw", worker: "raw", kinds, limit: 1, leaseMs: 60_000 });
    await recorder.query("select pg_advisory_unlock($1)", [KEY]);
    recorder.release();

    const result = await fork;
    expect(await cs.intent(id)).toMatchObject({ status: "dispatched" });
    expect(await cs.pending({ threadId })).toHaveLength(1);
    expect(result).toMatchObject(refused);
  });
});
