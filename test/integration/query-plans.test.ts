import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { postgres } from "../../src/backends/postgres/index.ts";
import { renewLeases } from "../../src/database/claims.ts";
import { leaseInquiries } from "../../src/database/inquiries.ts";
import { nextWork } from "../../src/database/next-work.ts";
import { postgresDatabase } from "../../src/database/postgres.ts";
import { nextDueInMs } from "../../src/database/sweep.ts";
import { renewThreadLeases } from "../../src/database/threads.ts";
import {
  type Countersign,
  commit,
  commitAll,
  countersign,
  defineCommitment,
  defineGraph,
  pending,
  requestDecision,
  sleep,
  waitForEvent,
} from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { MIA } from "../support/effects.ts";
import { explainedPool, type Visit } from "../support/explained-pool.ts";
import { fillHistory } from "../support/fill-history.ts";

/*
 * With a long history and a full inbox, nothing that the SDK does in a thread's life reads more of a table
 * than what it is about. The server itself tells the plan of each statement that it ran, of those inside
 * triggers too, so that nothing has to be listed here to be checked.
 */

const { url, pool: setUp } = await testDatabase();
/** A page of the inbox has 100. Whatever reads more rows than this grows with the history. */
const FEW = 500;

const declared = {
  version: 1,
  sideEffectClass: "external_message",
  approvalClass: "A1",
  reversibilityClass: "R2",
  sensitivityClass: "S1",
  input: z.object({ n: z.number() }),
  output: z.object({}),
} as const;
const send = defineCommitment({
  ...declared,
  name: "plans.send",
  execute: async () => ({}),
  compensate: async () => {},
});
const slow = defineCommitment({
  ...declared,
  name: "plans.slow",
  execute: async ({ n }) => pending({ externalRef: `ref-${n}` }),
  poll: async () => ({ status: "pending" }),
});
const once = defineCommitment({
  ...declared,
  name: "plans.once",
  semantics: "at-most-once",
  execute: async () => {
    throw new Error("who knows");
  },
  reconcile: async () => ({ status: "succeeded", output: {}, receipt: { id: "r-1" } }),
});

const State = Annotation.Root({ log: Annotation<string[]>({ reducer: (all, more) => [...all, ...more] }) });
const life = defineGraph({
  name: "life",
  version: 1,
  durability: "durable",
  commitments: [send, slow, once],
  onReject: "compensate",
  graph: new StateGraph(State)
    .addNode("sends", async () => ({ log: [(await commit(send, { n: 1 })).status] }))
    .addNode("asks", async () => ({ log: [(await requestDecision({ name: "plans.go", payload: { n: 1 } })).status] }))
    .addNode("sleeps", async () => {
      await sleep(1);
      return { log: ["slept"] };
    })
    .addNode("listens", async () => ({ log: [(await waitForEvent("paid", { schema: z.object({}) })).status] }))
    .addNode("waits", async () => ({
      log: [(await commit(slow, { n: 1 })).status, (await commit(once, { n: 1 })).status],
    }))
    .addNode("groups", async () => {
      const requests = [1, 2].map((n) => ({ commitment: send, input: { n } }));
      return { log: (await commitAll(requests)).map(({ status }) => status) };
    })
    .addEdge(START, "sends")
    .addEdge("sends", "asks")
    .addEdge("asks", "sleeps")
    .addEdge("sleeps", "listens")
    .addEdge("listens", "waits")
    .addEdge("waits", "groups")
    .addEdge("groups", END),
});

beforeAll(() => fillHistory(setUp, "countersign", { ended: 50_000, pending: 5_000 }));

/** A whole life, with everything in it that is hot. */
async function live(cs: Countersign): Promise<string> {
  const { threadId } = await cs.start(life, { log: [] });
  const approveNext = async (): Promise<void> => {
    const [intent] = await cs.pending({ threadId });
    if (intent === undefined) throw new Error("nothing is pending");
    await cs.approve(intent.id, { by: MIA, digest: intent.digest });
    await cs.work({ until: "idle" });
  };
  await approveNext();
  await approveNext();
  for (let status = await cs.drive(threadId); status !== "waiting"; status = await cs.drive(threadId)) {}
  await cs.work({ until: "idle" });
  await cs.sendEvent(threadId, { name: "paid", eventId: "e-1", payload: {} });
  await cs.work({ until: "idle" });
  await approveNext();
  await cs.complete({ commitment: slow, externalRef: "ref-1" }, { output: {}, by: MIA });
  await cs.work({ until: "idle" });
  await approveNext();
  const [intent] = await cs.pending({ threadId, role: "manager", principalId: "zoe", commitment: "plans.send" });
  await cs.reject(intent?.id ?? "", { by: MIA, reason: "no" });
  await cs.work({ until: "idle" });
  return threadId;
}

describe.each(["auto", "force_generic_plan"])("with plan_cache_mode = %s", (mode) => {
  const { pool, visits } = explainedPool(url, [`plan_cache_mode=${mode}`]);
  afterAll(() => pool.end());

  it("reads little of any table in a whole life of a thread, however long the history", async () => {
    await using cs = await countersign({ database: pool, graphs: [life], backend: postgres() });
    visits.length = 0;

    const threadId = await live(cs);
    const page = await cs.pending();
    await cs.pending({ role: "manager", after: { id: page.at(-1)?.id ?? "" } });
    await cs.result(threadId);
    await cs.audit.list(threadId);
    await cs.state(threadId);
    await cs.cancel((await cs.start(life, { log: [] })).threadId, { by: MIA });

    expect(tooMany(visits)).toEqual([]);
    expect(new Set(visits.map(({ table }) => table))).toEqual(new Set([...visits.map(({ table }) => table), ...HOT]));
  });

  it("reads little where it only looks whether there is something to do", async () => {
    const db = postgresDatabase(pool, { schema: "countersign" });
    const keys = ["history.effect@1", "plans.send@1", "plans.slow@1"];
    const worker = { backend: "postgres", worker: "w", leaseMs: 1_000, limit: 50, workflowKeys: keys };
    visits.length = 0;

    await nextWork(db, {
      backend: "postgres",
      workflowKeys: keys,
      startable: keys,
      reconcilable: keys,
      pollable: keys,
    });
    await nextDueInMs(db);
    await leaseInquiries(db, { ...worker, status: "unknown" });
    await leaseInquiries(db, { ...worker, status: "awaiting_external" });
    await renewLeases(db, { leases: [{ id: "00000001-0000-4000-8000-000000000000", leaseToken: 7 }], leaseMs: 1_000 });
    await renewThreadLeases(db, { leases: [{ threadId: "thread-000000001", leaseToken: 7 }], leaseMs: 1_000 });

    expect(visits.length).toBeGreaterThan(8);
    expect(tooMany(visits)).toEqual([]);
  });
});

/** The tables that a thread's life goes through. */
const HOT = [
  "threads",
  "execution_intents",
  "decisions",
  "events",
  "audit_chains",
  "audit_log",
  "checkpoints",
  "checkpoint_blobs",
  "checkpoint_writes",
];

/** Scans of whole tables that grow, and whatever reads more rows than a page. Small tables may well be scanned. */
function tooMany(visits: readonly Visit[]): Visit[] {
  const grown = ["threads", "execution_intents", "audit_chains", "audit_log", "checkpoints"];
  return visits.filter(({ node, table, rows }) => rows > FEW || (node === "Seq Scan" && grown.includes(table)));
}
