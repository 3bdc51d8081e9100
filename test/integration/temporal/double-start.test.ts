import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { Client, Connection } from "@temporalio/client";
import { afterAll, afterEach, expect, it, vi } from "vitest";
import { temporal } from "../../../src/backends/temporal/index.ts";
import { commit, countersign, defineGraph } from "../../../src/index.ts";
import { testDatabase } from "../../support/database.ts";
import { effect, type TestCommitment, uniqueName } from "../../support/effects.ts";
import { testTemporal } from "../../support/temporal.ts";

const { pool } = await testDatabase();
const { address } = await testTemporal();
const connection = await Connection.connect({ address });
const client = new Client({ connection });
afterAll(() => connection.close());

const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));

/** What the claim is about. */
const COUNT = 1_000;

const State = Annotation.Root({ done: Annotation<boolean> });

/** A graph that commits to so many and waits for none. */
function graphOf(commitment: TestCommitment) {
  return defineGraph({
    name: uniqueName("many"),
    version: 1,
    durability: "durable",
    commitments: [commitment],
    graph: new StateGraph(State)
      .addNode("act", async () => {
        for (let n = 0; n < COUNT; n++) await commit(commitment, { n }, { key: `n-${n}`, wait: false });
        return { done: true };
      })
      .addEdge(START, "act")
      .addEdge("act", END),
  });
}

it(`starts each of ${COUNT} workflows once and has each effect once when two dispatchers work at once`, async () => {
  const keys: string[] = [];
  const graph = graphOf(
    effect({
      execute: async (_input, { idempotencyKey }) => {
        keys.push(idempotencyKey);
        return { ref: "r" };
      },
    }),
  );
  const backend = temporal({ address, taskQueue: uniqueName("queue"), concurrency: 100 });
  const open = () =>
    countersign({ database: pool, graphs: [graph], backend, onError: (error) => errors.push(error), leaseMs: 5_000 });
  await using one = await open();
  await using two = await open();
  const { threadId } = await one.start(graph, { done: false });
  const stop = new AbortController();
  const working = [one, two].map((cs) => cs.work({ signal: stop.signal }));
  // What one of them has handed over looks to the other as if nobody had, until it is claimed.
  let forgotten = 0;
  for (;;) {
    const { rowCount } = await pool.query(`
      update countersign.execution_intents i set lease_owner = null, lease_expires_at = null
      from (select id from countersign.execution_intents where status = 'runnable' and lease_owner is not null
            order by id for no key update skip locked) handed
      where i.id = handed.id`);
    forgotten += rowCount ?? 0;
    const { rows } = await pool.query("select from countersign.execution_intents where ended_at is null limit 1");
    if (rows.length === 0) break;
  }
  stop.abort();
  await Promise.all(working);

  const intents = await one.intents(threadId);
  expect(intents).toHaveLength(COUNT);
  expect(forgotten).toBeGreaterThan(COUNT / 2);
  expect(new Set(intents.map(({ status, attempt }) => `${status} ${attempt}`))).toEqual(new Set(["succeeded 1"]));
  expect(keys.sort()).toEqual(intents.map(({ id }) => id).sort());
  const ids = new Set(intents.map(({ id }) => id));
  await vi.waitFor(
    async () => {
      const runs: string[] = [];
      for await (const { workflowId } of client.workflow.list()) if (ids.has(workflowId)) runs.push(workflowId);
      expect(runs.sort()).toEqual([...ids].sort());
    },
    { timeout: 20_000, interval: 500 },
  );
}, 900_000);
