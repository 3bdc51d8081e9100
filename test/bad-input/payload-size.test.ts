import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { expect, it } from "vitest";
import { z } from "zod";
import { postgres } from "../../src/backends/postgres/index.ts";
import { type CountersignOptions, commit, countersign, defineGraph, requestDecision } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { uniqueName } from "../support/effects.ts";
import { everything, graphOf, letter, onlyOne } from "../support/requests.ts";

const { pool } = await testDatabase();

const TEN_MB = 10 * 1024 * 1024;
/** The limit unless another one is set: 1 MiB. */
const LIMIT = 1024 * 1024;
const bulk = "x".repeat(TEN_MB);
const mia = { id: "mia", roles: ["manager"] };
const tooLarge = (maxPayloadBytes: number) => ({
  code: "PAYLOAD_TOO_LARGE",
  facts: { sizeBytes: expect.any(Number), maxPayloadBytes },
});

const bulky = (name = uniqueName("letter.bulky"), changes: Parameters<typeof letter>[1] = {}) =>
  letter(name, { execute: async () => ({ id: "sent" }), ...changes });

const open = (graphs: CountersignOptions["graphs"], options: Partial<CountersignOptions> = {}) =>
  countersign({ database: pool, graphs, backend: postgres(), ...options });

const State = Annotation.Root({ said: Annotation<unknown> });
const graphAround = (name: string, node: () => Promise<unknown>, commitments: ReturnType<typeof letter>[] = []) =>
  defineGraph({
    name,
    version: 1,
    durability: "durable",
    commitments,
    graph: new StateGraph(State)
      .addNode("node", async () => ({ said: await node() }))
      .addEdge(START, "node")
      .addEdge("node", END),
  });

/** As `letter`, but of any length. */
const anyLength = { input: z.object({ to: z.string(), text: z.string() }) } as object;

it.each([
  ["payload", (send: ReturnType<typeof letter>) => commit(send, { to: "ada", text: bulk })],
  ["evidence", (send: ReturnType<typeof letter>) => commit(send, { to: "ada", text: "" }, { evidence: { bulk } })],
  ["decision", () => requestDecision({ name: "partner.approve", payload: { bulk } })],
])("a %s of 10 MB is refused where it is proposed, and nothing of it is recorded", async (_name, node) => {
  const send = bulky(undefined, anyLength);
  const graph = graphAround(send.name, () => node(send), [send]);
  await using cs = await open([graph]);
  const run = await cs.start(graph, {});
  expect(run).toMatchObject({ status: "failed", error: { code: "PAYLOAD_TOO_LARGE" } });
  expect(run.error?.message).toContain(`maxPayloadBytes: ${LIMIT}`);
  expect(run.error?.message).toMatch(/sizeBytes: 104857\d\d/);
  expect(await cs.intents(run.threadId)).toEqual([]);
});

it("an edit, an event, an output and a receipt of 10 MB are refused, and nothing changes", async () => {
  const send = bulky(undefined, anyLength);
  const graph = graphOf(send);
  await using cs = await open([graph]);
  const { threadId, pending } = await cs.start(graph, { letter: { to: "ada", text: "" } } as never);
  const { id: intentId, digest } = onlyOne(pending);
  const before = await everything(pool);
  const by = mia;
  await expect(cs.edit(intentId, { text: bulk }, { by, digest })).rejects.toMatchObject(tooLarge(LIMIT));
  await expect(cs.sendEvent(threadId, { name: "a", eventId: "b", payload: bulk })).rejects.toMatchObject(
    tooLarge(LIMIT),
  );
  await expect(cs.complete({ intentId }, { output: { id: bulk } })).rejects.toMatchObject(tooLarge(LIMIT));
  const receipt = { proof: bulk };
  await expect(cs.complete({ intentId }, { output: { id: "1" }, receipt })).rejects.toMatchObject(tooLarge(LIMIT));
  expect(await everything(pool)).toEqual(before);
});

it("an edit is measured as a whole: what is small by itself may not make the payload too large", async () => {
  const send = bulky(undefined, anyLength);
  const graph = graphOf(send);
  await using cs = await open([graph], { maxPayloadBytes: 100 });
  const { pending } = await cs.start(graph, { letter: { to: "ada", text: "x".repeat(40) } } as never);
  const { id, digest } = onlyOne(pending);
  const edit = cs.edit(id, { to: "y".repeat(60) }, { by: mia, digest });
  await expect(edit).rejects.toMatchObject(tooLarge(100));
  expect(await cs.intent(id)).toMatchObject({ status: "awaiting_decision", digest });
});

it("a handler that answers 10 MB has done its work: it is not called again, and the intent says why it failed", async () => {
  let calls = 0;
  const send = bulky(undefined, {
    execute: async () => {
      calls++;
      return { id: bulk };
    },
  });
  const graph = graphOf(send);
  await using cs = await open([graph]);
  const { threadId, pending } = await cs.start(graph, { letter: { to: "ada", text: "" } } as never);
  const { id, digest } = onlyOne(pending);
  await cs.approve(id, { by: mia, digest });
  await cs.work({ until: "idle" });
  expect(await cs.intent(id)).toMatchObject({ status: "failed", error: { code: "PAYLOAD_TOO_LARGE" }, output: null });
  expect(calls).toBe(1);
  expect((await cs.result(threadId)).status).toBe("completed");
});

it("10 MB go all the way, as input, edit and output, where that is allowed", { timeout: 60_000 }, async () => {
  let received = 0;
  const send = bulky(undefined, {
    ...anyLength,
    execute: async ({ text }) => {
      received = text.length;
      return { id: text };
    },
  });
  const graph = graphOf(send);
  await using cs = await open([graph], { maxPayloadBytes: TEN_MB + 1_000 });
  const { threadId, pending } = await cs.start(graph, { letter: { to: "ada", text: bulk } } as never);
  const { id, digest } = onlyOne(pending);
  await cs.edit(id, { text: `${bulk}!` }, { by: mia, digest });
  await cs.work({ until: "idle" });
  expect(received).toBe(TEN_MB + 1);
  expect((await cs.intent(id))?.output).toEqual({ id: `${bulk}!` });
  expect(await cs.result(threadId)).toMatchObject({
    status: "completed",
    output: { outcome: { status: "succeeded" } },
  });
});

it("the size is that of canonical JSON in UTF-8: at the limit it is taken, one byte above it is not", async () => {
  const send = bulky(undefined, anyLength);
  const graph = graphOf(send);
  const sizeBytes = Buffer.byteLength(JSON.stringify({ to: "ä", text: "€😀" }));
  for (const [maxPayloadBytes, status] of [
    [sizeBytes, "waiting"],
    [sizeBytes - 1, "failed"],
  ] as const) {
    await using cs = await open([graph], { maxPayloadBytes });
    expect(await cs.start(graph, { letter: { text: "€😀", to: "ä" } } as never)).toMatchObject({ status });
  }
});
