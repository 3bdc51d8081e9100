import { afterAll, expect, it } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { countersign, isCountersignError } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { nonsenseBut } from "../support/nonsense.ts";
import { everything, graphOf, letter, onlyOne } from "../support/requests.ts";

const { pool } = await testDatabase();
const send = letter("letter.nonsense");
const graph = graphOf(send);
const unheard: unknown[] = [];
const cs = await countersign({
  database: pool,
  graphs: [graph],
  backend: postgres(),
  onError: (error) => unheard.push(error),
});
afterAll(() => cs.close());

const by = { id: "mia", roles: ["manager"] };
const input = { letter: { to: "ada", text: "hello" } };
const { threadId, pending } = await cs.start(graph, input as never);
const intent = onlyOne(pending);
const { digest } = intent;

/** JavaScript knows no types. */
// biome-ignore lint/suspicious/noExplicitAny: the point
const untyped = cs as any;
const first = async (items: AsyncIterable<unknown>): Promise<void> => {
  for await (const _ of items) break;
};
const approve = (options: object): unknown => untyped.approve(intent.id, { by, digest, ...options });
const complete = (options: object): unknown =>
  untyped.complete({ intentId: intent.id }, { output: { id: "1" }, ...options });
const fail = (options: object): unknown => untyped.fail({ intentId: intent.id }, { reason: "no", ...options });
const start = (options: object): unknown => untyped.start(graph, input, options);

/** A public call, what is put where nonsense does not belong, and what of it makes sense there all the same: a Date has no unknown option, either. */
const CALLS: [string, (value: unknown) => unknown, ...string[]][] = [
  ["start(graph)", (value) => untyped.start(value, {})],
  ["start(…, options)", (value) => untyped.start(graph, input, value), "undefined", "an invalid Date"],
  ...["threadId", "correlationId", "tenant", "proposedBy", "traceparent"].map(
    (name): [string, (value: unknown) => unknown, ...string[]] => [
      `start({ ${name} })`,
      (value) => start({ [name]: value }),
      "undefined",
      "a text",
    ],
  ),
  ["start({ recursionLimit })", (recursionLimit) => start({ recursionLimit }), "undefined", "a number"],
  ["start({ callbacks })", (callbacks) => start({ callbacks }), "undefined", "a list"],
  ["start({ signal })", (signal) => start({ signal }), "undefined"],
  ["stream(graph)", (value) => first(untyped.stream(value, {}, { streamMode: "values" })), "a text"],
  ["stream(threadId)", (value) => first(untyped.stream(value, { streamMode: "values" }))],
  ["stream(…, options)", (value) => first(untyped.stream(threadId, value))],
  ["stream({ streamMode })", (streamMode) => first(untyped.stream(threadId, { streamMode })), "a text"],
  ["drive(threadId)", (value) => untyped.drive(value)],
  ["retry(threadId)", (value) => untyped.retry(value)],
  ["result(threadId)", (value) => untyped.result(value)],
  ["result(…, options)", (value) => untyped.result(threadId, value), "undefined", "an invalid Date"],
  ["result({ signal })", (signal) => untyped.result(threadId, { signal }), "undefined"],
  ["events(threadId)", async (value) => first(untyped.events(value))],
  ["events({ signal })", async (signal) => first(untyped.events(threadId, { signal })), "undefined"],
  ["state(threadId)", (value) => untyped.state(value)],
  ["history(threadId)", (value) => first(untyped.history(value))],
  ["fork(threadId)", (value) => untyped.fork(value, { checkpointId: "x" })],
  ["fork(…, options)", (value) => untyped.fork(threadId, value)],
  ["fork({ checkpointId })", (checkpointId) => untyped.fork(threadId, { checkpointId })],
  ["pending(filter)", (value) => untyped.pending(value), "undefined", "an invalid Date"],
  ...["tenant", "threadId", "commitment", "role", "principalId"].map(
    (name): [string, (value: unknown) => unknown, ...string[]] => [
      `pending({ ${name} })`,
      (value) => untyped.pending({ [name]: value }),
      "undefined",
      "a text",
    ],
  ),
  ["pending({ after })", (after) => untyped.pending({ after }), "undefined"],
  ["pending({ after: { id } })", (id) => untyped.pending({ after: { id } })],
  ["pending({ limit })", (limit) => untyped.pending({ limit }), "undefined", "a number"],
  // A text that is no id is the id of nothing.
  [
    "intent(intentId)",
    (value) => untyped.intent(value),
    "a text",
    "an empty text",
    "a text with NUL",
    "a lone surrogate",
    "an endless text",
  ],
  ["intents(threadId)", (value) => untyped.intents(value), "a text"],
  ["approve(intentId)", (value) => untyped.approve(value, { by, digest })],
  ["approve(…, options)", (value) => untyped.approve(intent.id, value)],
  ["approve({ by })", (value) => approve({ by: value })],
  ["approve({ by: { id } })", (id) => approve({ by: { id, roles: [] } })],
  ["approve({ by: { roles } })", (roles) => approve({ by: { id: "mia", roles } })],
  ["approve({ by: { roles: […] } })", (role) => approve({ by: { id: "mia", roles: [role, "intern"] } })],
  ["approve({ digest })", (value) => approve({ digest: value })],
  ["approve({ reason })", (reason) => approve({ by: { id: "mia", roles: ["intern"] }, reason })],
  ["approve({ reasonCode })", (code) => approve({ by: { id: "mia", roles: ["intern"] }, reasonCode: code })],
  ["edit(amendment)", (value) => untyped.edit(intent.id, value, { by, digest })],
  ["edit(…, options)", (value) => untyped.edit(intent.id, { text: "other" }, value)],
  ["reject(intentId)", (value) => untyped.reject(value, { by })],
  ["reject(…, options)", (value) => untyped.reject(intent.id, value)],
  ["reject({ digest })", (value) => untyped.reject(intent.id, { by, digest: value }), "undefined"],
  ["complete(ref)", (ref) => untyped.complete(ref, { output: { id: "1" } })],
  ["complete({ intentId })", (intentId) => untyped.complete({ intentId }, { output: { id: "1" } })],
  ["complete({ commitment })", (value) => untyped.complete({ commitment: value, externalRef: "x" }, { output: {} })],
  ["complete({ externalRef })", (ref) => untyped.complete({ commitment: send, externalRef: ref }, { output: {} })],
  ["complete(…, options)", (value) => untyped.complete({ intentId: intent.id }, value)],
  ["complete({ output })", (output) => complete({ output })],
  ["complete({ receipt })", (receipt) => complete({ receipt })],
  ["complete({ by })", (value) => complete({ by: value })],
  ["fail(ref)", (ref) => untyped.fail(ref, { reason: "no" })],
  ["fail(…, options)", (value) => untyped.fail({ intentId: intent.id }, value)],
  ["fail({ reason })", (reason) => fail({ reason })],
  ["fail({ reasonCode })", (code) => fail({ reasonCode: code })],
  ["fail({ by })", (value) => fail({ by: value })],
  ["sendEvent(threadId)", (value) => untyped.sendEvent(value, { name: "a", eventId: "b" })],
  ["sendEvent(…, event)", (value) => untyped.sendEvent(threadId, value)],
  ["sendEvent({ name })", (name) => untyped.sendEvent(threadId, { name, eventId: "b" }), "a text"],
  ["sendEvent({ eventId })", (eventId) => untyped.sendEvent(threadId, { name: "a", eventId }), "a text"],
  ["cancelIntent(intentId)", (value) => untyped.cancelIntent(value, { by })],
  ["cancelIntent(…, options)", (value) => untyped.cancelIntent(intent.id, value)],
  ["cancelIntent({ by })", (value) => untyped.cancelIntent(intent.id, { by: value })],
  ["cancel(threadId)", (value) => untyped.cancel(value, { by })],
  ["cancel(…, options)", (value) => untyped.cancel(threadId, value)],
  ["cancel({ by })", (value) => untyped.cancel(threadId, { by: value })],
  ["replay(intentId)", (value) => untyped.replay(value, { by })],
  ["replay(…, options)", (value) => untyped.replay(intent.id, value)],
  ["replay({ by })", (value) => untyped.replay(intent.id, { by: value })],
  ["audit.list(threadId)", (value) => untyped.audit.list(value), "a text"],
  ["audit.verify(options)", (value) => untyped.audit.verify(value), "undefined", "an invalid Date"],
  ["audit.verify({ threadId })", (value) => untyped.audit.verify({ threadId: value }), "undefined", "a text"],
  ["work(options)", (value) => untyped.work(value), "undefined", "an invalid Date"],
  ["work({ until })", (until) => untyped.work({ until }), "undefined"],
  ["work({ signal })", (signal) => untyped.work({ signal }), "undefined"],
  ["close(options)", (value) => untyped.close(value), "undefined", "an invalid Date"],
  ["close({ timeoutMs })", (timeoutMs) => untyped.close({ timeoutMs }), "undefined", "a number", "Infinity"],
];

it.each(CALLS)("%s answers nonsense with an error of ours, and nothing changes", async (_name, call, ...sensible) => {
  const before = await everything(pool);
  for (const [name, value] of nonsenseBut(...sensible)) {
    const said = await (async () => call(value))().then(
      () => "nothing",
      (error: unknown) => (isCountersignError(error) ? "an error of ours" : error),
    );
    expect(said, `for ${name}`).toBe("an error of ours");
  }
  expect(await everything(pool)).toEqual(before);
});

it("is none the worse for all that: the request is approved, and the thread goes on to its end", async () => {
  await cs.approve(intent.id, { by, digest });
  await cs.work({ until: "idle" });
  expect((await cs.result(threadId)).output).toMatchObject({ outcome: { status: "succeeded" } });
  expect(unheard).toEqual([]);
});

it("says where the nonsense is, what was known instead, and never the value", async () => {
  const refused = untyped.start(graph, input, { theadId: "s3cret" });
  await expect(refused).rejects.toMatchObject({ code: "OPTION_INVALID" });
  await expect(refused).rejects.toThrow(/'options.theadId'.*threadId/);
  const token = "s3cret\u0000";
  await expect(untyped.drive(token)).rejects.toThrow(
    expect.objectContaining({ message: expect.not.stringContaining("s3cret") }),
  );
});
