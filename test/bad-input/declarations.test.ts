import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { expect, it } from "vitest";
import { z } from "zod";
import { postgres } from "../../src/backends/postgres/index.ts";
import { countersign, defineCommitment, defineGraph, isCountersignError, pending } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { nonsenseBut } from "../support/nonsense.ts";

const { pool, url } = await testDatabase();

const commitment = {
  name: "mail.send",
  version: 1,
  sideEffectClass: "internal_write",
  approvalClass: "A0",
  reversibilityClass: "R0",
  sensitivityClass: "S0",
  input: z.object({}),
  output: z.object({}),
  execute: async () => ({}),
};
const State = Annotation.Root({ n: Annotation<number> });
const graph = {
  name: "mailer",
  version: 1,
  durability: "durable",
  graph: new StateGraph(State)
    .addNode("node", () => ({}))
    .addEdge(START, "node")
    .addEdge("node", END),
};

/** JavaScript knows no types. */
// biome-ignore lint/suspicious/noExplicitAny: the point
type Untyped = (value?: any) => unknown;
const [declare, declareGraph, open, later, embedded] = [
  defineCommitment,
  defineGraph,
  countersign,
  pending,
  postgres,
] as unknown as [Untyped, Untyped, Untyped, Untyped, Untyped];
const openWith = (options: object): unknown =>
  open({ database: pool, graphs: [], backend: postgres(), onError: () => {}, ...options });

/** A declaration, what is put where nonsense does not belong, and what of it makes sense there all the same. */
const CALLS: [string, Untyped, ...string[]][] = [
  ["defineCommitment(definition)", declare],
  ["defineCommitment({ name })", (name) => declare({ ...commitment, name }), "a text"],
  ["defineCommitment({ version })", (version) => declare({ ...commitment, version }), "a number"],
  ["defineCommitment({ input })", (input) => declare({ ...commitment, input })],
  ["defineCommitment({ output })", (output) => declare({ ...commitment, output })],
  ["defineCommitment({ sideEffectClass })", (value) => declare({ ...commitment, sideEffectClass: value })],
  ["defineCommitment({ approvalClass })", (value) => declare({ ...commitment, approvalClass: value })],
  ["defineCommitment({ actionClass })", (value) => declare({ ...commitment, actionClass: value }), "undefined"],
  ["defineCommitment({ semantics })", (value) => declare({ ...commitment, semantics: value }), "undefined"],
  ["defineCommitment({ execute })", (execute) => declare({ ...commitment, execute }), "a function"],
  [
    "defineCommitment({ compensate })",
    (value) => declare({ ...commitment, compensate: value }),
    "undefined",
    "a function",
  ],
  ["defineCommitment({ timeoutMs })", (timeoutMs) => declare({ ...commitment, timeoutMs }), "undefined", "a number"],
  [
    "defineCommitment({ retry: { maxAttempts } })",
    (maxAttempts) => declare({ ...commitment, retry: { maxAttempts } }),
    "a number",
  ],
  [
    "defineCommitment({ approvers })",
    (approvers) => declare({ ...commitment, approvers }),
    "undefined",
    "a function",
    "an invalid Date",
  ],
  ["defineGraph(definition)", declareGraph],
  ["defineGraph({ name })", (name) => declareGraph({ ...graph, name }), "a text"],
  ["defineGraph({ version })", (version) => declareGraph({ ...graph, version }), "a number"],
  ["defineGraph({ durability })", (durability) => declareGraph({ ...graph, durability })],
  ["defineGraph({ graph })", (source) => declareGraph({ ...graph, graph: source }), "a function"],
  ["defineGraph({ commitments })", (value) => declareGraph({ ...graph, commitments: value }), "undefined", "null"],
  ["defineGraph({ commitments: […] })", (value) => declareGraph({ ...graph, commitments: [value] })],
  ["defineGraph({ onReject })", (onReject) => declareGraph({ ...graph, onReject }), "undefined"],
  ["defineGraph({ actorType })", (actorType) => declareGraph({ ...graph, actorType }), "undefined", "null"],
  [
    "defineGraph({ lossWindow })",
    (value) => declareGraph({ ...graph, durability: "async", lossWindow: value }),
    "a text",
    "an endless text",
    "a text with NUL",
    "a lone surrogate",
  ],
  ["pending(answer)", later],
  ["pending({ externalRef })", (externalRef) => later({ externalRef }), "a text"],
  ["pending({ expiresAt })", (expiresAt) => later({ externalRef: "x", expiresAt }), "undefined"],
  ["postgres(options)", embedded, "undefined", "an invalid Date"],
  ["postgres({ concurrency })", (concurrency) => embedded({ concurrency }), "undefined", "a number"],
  ["countersign(options)", open],
  [
    "countersign({ database })",
    (database) => openWith({ database }),
    "a text",
    "a text with NUL",
    "a lone surrogate",
    "an endless text",
  ],
  ["countersign({ graphs })", (graphs) => openWith({ graphs })],
  ["countersign({ graphs: […] })", (value) => openWith({ graphs: [value] })],
  ["countersign({ backend })", (backend) => openWith({ backend })],
  ["countersign({ schema })", (schema) => openWith({ schema }), "undefined", "a text"],
  ["countersign({ prepare })", (prepare) => openWith({ prepare }), "undefined", "a boolean"],
  ["countersign({ leaseMs })", (leaseMs) => openWith({ leaseMs }), "undefined"],
  ["countersign({ pollIntervalMs })", (pollIntervalMs) => openWith({ pollIntervalMs }), "undefined"],
  [
    "countersign({ maxConcurrentDrives })",
    (value) => openWith({ maxConcurrentDrives: value }),
    "undefined",
    "a number",
  ],
  ["countersign({ maxPayloadBytes })", (value) => openWith({ maxPayloadBytes: value }), "undefined", "a number"],
  ["countersign({ onError })", (onError) => openWith({ onError }), "undefined", "a function"],
];

it.each(CALLS)("%s refuses nonsense with an error of ours", async (_name, call, ...sensible) => {
  // Who declares is the developer: no proxy comes this way.
  for (const [name, value] of nonsenseBut(...sensible, "an object that throws when it is read")) {
    const said = await (async () => call(value))().then(
      () => "taken",
      (error: unknown) => (isCountersignError(error) ? "refused" : error),
    );
    expect(said, name).toBe("refused");
  }
});

it.each([
  ["a version that Postgres cannot count to", () => declare({ ...commitment, version: 2 ** 31 })],
  ["a graph's version that Postgres cannot count to", () => declareGraph({ ...graph, version: 2 ** 31 })],
  ["a name that no index holds", () => declare({ ...commitment, name: "n".repeat(201) })],
  ["a retry after more than ten years", () => declare({ ...commitment, retry: { maxIntervalMs: 1e15 } })],
  ["a decision after more than ten years", () => declare({ ...commitment, decisionTimeoutMs: 1e15 })],
  ["a poll after more than ten years", () => declare({ ...commitment, pollIntervalMs: 1e15 })],
  ["a date that Postgres does not have", () => later({ externalRef: "x", expiresAt: new Date(-8.64e15) })],
  ["a reference that no index holds", () => later({ externalRef: "x".repeat(3_000) })],
  ["a payload limit beyond what jsonb takes", () => openWith({ maxPayloadBytes: 2 ** 31 })],
  ["a lease of a month", () => openWith({ leaseMs: 30 * 24 * 3_600_000 })],
])("%s is refused where it is declared, not where it is needed", async (_name, call) => {
  await expect((async () => call())()).rejects.toSatisfy(isCountersignError);
});

it.each(["user", "select", "table", "order", "values"])(
  "a schema named '%s', a word of SQL, is refused in our words, and nothing is created",
  async (schema) => {
    await expect(open({ database: url, graphs: [], backend: postgres(), schema })).rejects.toMatchObject({
      code: "OPTION_INVALID",
      facts: { schema },
    });
    const { rows } = await pool.query("select from pg_namespace where nspname = $1", [schema]);
    expect(rows).toEqual([]);
  },
);
