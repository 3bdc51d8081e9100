import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { afterAll, expect, it } from "vitest";
import { z } from "zod";
import { postgres } from "../../src/backends/postgres/index.ts";
import {
  commit,
  commitAll,
  compensate,
  countersign,
  defineGraph,
  isCountersignError,
  isWait,
  requestDecision,
  sleep,
  waitForEvent,
} from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { uniqueName } from "../support/effects.ts";
import { nonsenseBut } from "../support/nonsense.ts";
import { letter } from "../support/requests.ts";

const { pool } = await testDatabase();
const send = letter("letter.graph-side");
const input = { to: "ada", text: "hello" };

/** What the node does in the next run. */
let inNode: () => Promise<unknown>;
const State = Annotation.Root({ said: Annotation<unknown> });
const graph = defineGraph({
  name: "nonsense",
  version: 1,
  durability: "durable",
  commitments: [send],
  graph: new StateGraph(State)
    .addNode("node", async () => ({ said: await inNode() }))
    .addEdge(START, "node")
    .addEdge("node", END),
});
const cs = await countersign({ database: pool, graphs: [graph], backend: postgres() });
afterAll(() => cs.close());

/** JavaScript knows no types. */
// biome-ignore lint/suspicious/noExplicitAny: the point
type Untyped = (...args: any[]) => Promise<unknown>;
const [commitIt, commitThem, decideOn, wait, pause, undo] = [
  commit,
  commitAll,
  requestDecision,
  waitForEvent,
  sleep,
  compensate,
] as unknown as Untyped[] as [Untyped, Untyped, Untyped, Untyped, Untyped, Untyped];
const decision = { name: "partner.approve", payload: {} };

/** A call in a node, what is put where nonsense does not belong, and what of it makes sense there all the same. */
const CALLS: [string, Untyped, ...string[]][] = [
  ["commit(commitment)", (value) => commitIt(value, input)],
  ["commit(…, input)", (value) => commitIt(send, value)],
  [
    "commit(…, options)",
    (value) => commitIt(send, input, value),
    "undefined",
    "an invalid Date",
    "an object that throws when it is read",
  ],
  ["commit({ key })", (key) => commitIt(send, input, { key }), "undefined", "a text"],
  ["commit({ wait })", (value) => commitIt(send, input, { wait: value }), "undefined", "a boolean"],
  ["commit({ approvers })", (approvers) => commitIt(send, input, { approvers }), "undefined", "an invalid Date"],
  ["commit({ approvers: { roles } })", (roles) => commitIt(send, input, { approvers: { roles } }), "undefined"],
  ["commit({ onDivergence })", (onDivergence) => commitIt(send, input, { onDivergence }), "undefined"],
  [
    "commit({ evidence })",
    (evidence) => commitIt(send, input, { evidence }),
    ...["undefined", "null", "a number", "a negative number", "an empty text", "a text", "an endless text"],
    ...["an object", "a list", "a boolean"],
  ],
  ["commitAll(requests)", (value) => commitThem(value)],
  ["commitAll([request])", (value) => commitThem([value])],
  ["commitAll([{ commitment }])", (commitment) => commitThem([{ commitment, input }])],
  ["commitAll([{ input }])", (value) => commitThem([{ commitment: send, input: value }])],
  ["requestDecision(request)", (value) => decideOn(value)],
  ["requestDecision({ name })", (name) => decideOn({ ...decision, name }), "a text"],
  ["requestDecision({ schema })", (schema) => decideOn({ ...decision, schema }), "undefined"],
  ["requestDecision({ approvalClass })", (value) => decideOn({ ...decision, approvalClass: value }), "undefined"],
  ["requestDecision({ sensitivityClass })", (value) => decideOn({ ...decision, sensitivityClass: value }), "undefined"],
  ["requestDecision({ timeoutMs })", (timeoutMs) => decideOn({ ...decision, timeoutMs }), "undefined", "a number"],
  ["requestDecision({ summary })", (summary) => decideOn({ ...decision, summary }), "undefined", "a text"],
  ["waitForEvent(name)", (value) => wait(value), "a text"],
  ["waitForEvent(…, options)", (value) => wait("signed", value), "undefined", "an invalid Date"],
  ["waitForEvent({ timeoutMs })", (timeoutMs) => wait("signed", { timeoutMs }), "undefined", "a number"],
  ["waitForEvent({ schema })", (schema) => wait("signed", { schema }), "undefined"],
  ["sleep(durationMs)", (value) => pause(value), "a number"],
  ["sleep(…, options)", (value) => pause(1, value), "undefined", "an invalid Date"],
  ["compensate(options)", (value) => undo(value)],
  ["compensate({ reason })", (reason) => undo({ reason }), "an empty text", "a text", "an endless text"],
];

it.each(CALLS)("%s refuses nonsense with an error of ours, and records nothing", async (_name, call, ...sensible) => {
  const nonsense = nonsenseBut(...sensible);
  inNode = () =>
    Promise.all(
      nonsense.map(([name, value]) =>
        (async () => call(value))().then(
          () => `${name}: taken`,
          (error) => (isCountersignError(error) ? "refused" : `${name}: ${isWait(error) ? "waits" : error}`),
        ),
      ),
    );
  const run = await cs.start(graph, {});
  expect(run).toMatchObject({ status: "completed", output: { said: nonsense.map(() => "refused") } });
  expect(await cs.intents(run.threadId)).toEqual([]);
});

it.each([
  ["a transform", z.object({ at: z.string().transform((text) => text.length) })],
  ["a Date", z.object({ at: z.date() })],
  ["a check in code alone", z.object({ at: z.custom(() => true) })],
  ["a bigint", z.object({ at: z.bigint().optional() })],
])("requestDecision() refuses a schema with %s, which JSON Schema cannot say", async (_name, schema) => {
  inNode = () => requestDecision({ name: "partner.approve", payload: { at: "now" } as never, schema: schema as never });
  const run = await cs.start(graph, {});
  expect(run).toMatchObject({ status: "failed", error: { code: expect.stringMatching(/^(OPTION|INPUT)_INVALID$/) } });
  expect(await cs.intents(run.threadId)).toEqual([]);
});

it.each([
  ["empty", ""],
  ["no text", 7],
  ["nothing", undefined],
  ["too long for an index", "k".repeat(3_000)],
  ["with NUL", "a\u0000b"],
])("a commitment whose idempotency key is %s is not recorded", async (_name, key) => {
  const keyed = letter(uniqueName("letter.keyed"), { idempotencyKey: () => key as string });
  const own = defineGraph({
    name: keyed.name,
    version: 1,
    durability: "durable",
    commitments: [keyed],
    graph: new StateGraph(State)
      .addNode("node", async () => ({ said: (await commit(keyed, input)).status }))
      .addEdge(START, "node")
      .addEdge("node", END),
  });
  await using alone = await countersign({ database: pool, graphs: [own], backend: postgres() });
  const run = await alone.start(own, {});
  expect(run).toMatchObject({ status: "failed", error: { code: "INPUT_INVALID" } });
  expect(await alone.intents(run.threadId)).toEqual([]);
});

it("two waits for events of one name are answered in the order of their calls, whatever their ids", async () => {
  for (let round = 0; round < 8; round++) {
    inNode = async () => {
      const [first, second, third] = await Promise.all([wait("signed"), wait("signed"), wait("signed")]);
      return [first, second, third].map((outcome) => (outcome as { payload: unknown }).payload);
    };
    const { threadId } = await cs.start(graph, {});
    for (const n of [1, 2, 3]) await cs.sendEvent(threadId, { name: "signed", eventId: `e-${n}`, payload: n });
    await cs.work({ until: "idle" });
    expect((await cs.result(threadId)).output).toEqual({ said: [1, 2, 3] });
  }
});
