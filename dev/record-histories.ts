import { mkdirSync, writeFileSync } from "node:fs";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { Client, Connection } from "@temporalio/client";
import { historyToJSON } from "@temporalio/common/lib/proto-utils.js";
import { z } from "zod";
import { temporal } from "../src/backends/temporal/index.ts";
import { pglite } from "../src/database/pglite.ts";
import {
  type Commitment,
  type CommitmentDefinition,
  type Countersign,
  commit,
  compensate,
  countersign,
  defineCommitment,
  defineGraph,
  NonRetryableError,
  pending,
} from "../src/index.ts";
import { startTemporal } from "./temporal-server/start.ts";

/*
 * `npm run temporal:record`: lives through each way that a workflow of ours can take, on a real
 * server, and keeps the histories that the replay test replays. Run it after a change of the workflow
 * that is meant, and only then: histories of earlier releases stay, and must still replay.
 */
type Definition = CommitmentDefinition<{ n: number }, { ref: string }>;
type Life = (cs: Countersign, intentId: string) => Promise<unknown>;

const FOLDER = new URL("../test/integration/temporal/histories/", import.meta.url);
const server = await startTemporal();
const connection = await Connection.connect({ address: server.address });
const client = new Client({ connection });
mkdirSync(FOLDER, { recursive: true });

await record("succeeded", { execute: async () => ({ ref: "r" }) });
await record("retried-and-failed", {
  retry: { initialIntervalMs: 10 },
  execute: async (_input, { attempt }) => {
    if (attempt < 3) throw new Error("away");
    throw new NonRetryableError("no");
  },
});
await record("completed-by-webhook", { execute: async () => pending({ externalRef: "e-1" }) }, async (cs, intentId) => {
  await cs.complete({ intentId }, { output: { ref: "signed" } });
});
await record("polled", {
  execute: async () => pending({ externalRef: "e-2" }),
  pollIntervalMs: 50,
  poll: async () => ({ status: "succeeded", output: { ref: "seen" } }),
});
await record("expired", {
  execute: async () => pending({ externalRef: "e-3", expiresAt: new Date(Date.now() + 1_200) }),
});
await record("cancelled", { execute: async () => pending({ externalRef: "e-4" }) }, async (_cs, intentId) => {
  await client.workflow.getHandle(intentId).cancel();
});
await record("unknown-and-reconciled", {
  semantics: "at-most-once",
  retry: { initialIntervalMs: 10 },
  execute: async () => {
    throw new Error("socket hang up");
  },
  reconcile: async () => ({ status: "succeeded", output: { ref: "found" } }),
});
await record("compensated", { execute: async () => ({ ref: "r" }), compensate: async () => {} });

await connection.close();
await server.stop();

/** One intent of this kind, lived through to its end; the histories of its effect and of what undid it. */
async function record(name: string, definition: Partial<Definition> & Pick<Definition, "execute">, live?: Life) {
  const commitment = defineCommitment({
    name: `history.${name}`,
    version: 1,
    input: z.object({ n: z.number() }),
    output: z.object({ ref: z.string() }),
    sideEffectClass: "internal_write",
    approvalClass: "A0",
    reversibilityClass: "R1",
    sensitivityClass: "S1",
    ...definition,
  });
  const graph = graphOf(commitment);
  const cs = await countersign({
    database: pglite(),
    graphs: [graph],
    backend: temporal({ address: server.address, taskQueue: `record-${name}` }),
  });
  const work = cs.work();
  const { threadId } = await cs.start(graph, { n: 1 });
  const [intent] = await cs.intents(threadId);
  if (intent === undefined) throw new Error(`'${name}' recorded no intent`);
  if (live !== undefined) {
    await seen(cs, threadId, ({ status }) => status === "awaiting_external");
    await live(cs, intent.id);
  }
  await cs.result(threadId);
  for (const { id, kind, backend } of await cs.intents(threadId)) {
    if (backend === null) continue;
    const handle = client.workflow.getHandle(id);
    await handle.result().catch(() => {});
    const file = `${name}${kind === "compensation" ? ".compensation" : ""}.json`;
    writeFileSync(new URL(file, FOLDER), `${withoutNames(historyToJSON(await handle.fetchHistory()))}\n`);
    console.log(file);
  }
  await cs.close();
  await work;
}

/** A history says on which machine it was made. */
function withoutNames(history: string): string {
  return JSON.stringify(
    JSON.parse(history),
    (key, value) => {
      if (key === "identity") return "recorded";
      return value?.kind === "TASK_QUEUE_KIND_STICKY" ? { ...value, name: "sticky" } : value;
    },
    1,
  );
}

async function seen(cs: Countersign, threadId: string, test: (intent: { status: string }) => boolean): Promise<void> {
  for await (const _event of cs.events(threadId)) if ((await cs.intents(threadId)).some(test)) return;
}

function graphOf(commitment: Commitment<{ n: number }, { ref: string }>) {
  const State = Annotation.Root({ n: Annotation<number> });
  return defineGraph({
    name: commitment.name,
    version: 1,
    durability: "durable",
    commitments: [commitment],
    graph: new StateGraph(State)
      .addNode("act", async ({ n }) => {
        await commit(commitment, { n });
        if (commitment.handlers.compensate !== undefined) await compensate({ reason: "recorded" });
        return {};
      })
      .addEdge(START, "act")
      .addEdge("act", END),
  });
}
