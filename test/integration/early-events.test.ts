import { END, START, StateGraph } from "@langchain/langgraph";
import { afterEach, expect, it, vi } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { cancelIntents, lockWithGroup } from "../../src/database/decisions.ts";
import { postgresDatabase } from "../../src/database/postgres.ts";
import { insertEvent, matchEvents } from "../../src/database/sweep.ts";
import { type AnyGraph, type Countersign, countersign, defineGraph, waitForEvent } from "../../src/index.ts";
import { moveClock } from "../../src/testing/clock.ts";
import { testDatabase } from "../support/database.ts";
import { PAST_LEASE_MS, uniqueName } from "../support/effects.ts";
import { type Gate, gate } from "../support/gate.ts";
import { Log, oneNode } from "../support/messenger.ts";
import { somebodyWaits } from "../support/somebody-waits.ts";

/* An event and the wait for it meet, whichever of the two is first and whoever dies or waits in between. */

const { pool } = await testDatabase();
const database = postgresDatabase(pool, { schema: "countersign" });
afterEach(() => moveClock(pool, { byMs: 0 }));

const open = (graph: AnyGraph): Promise<Countersign> =>
  countersign({ database: pool, graphs: [graph], backend: postgres() });
const paid = { name: "paid", eventId: "e-1", payload: 7 };
const listens = async () => {
  const event = await waitForEvent<number>("paid");
  return { log: [event.status === "received" ? `paid ${event.payload}` : event.status] };
};
const waitOf = async (cs: Countersign, threadId: string) =>
  (await cs.intents(threadId)).find(({ kind }) => kind === "event");

/** A graph that waits for an event when the gate opens. */
const listeningBehind = (door: Gate): AnyGraph =>
  oneNode(async () => {
    await door.pass();
    return listens();
  });

it("an event that came first answers its wait when the driver that recorded the wait loses its lease", async () => {
  const [door, work] = [gate(), gate()];
  let drivers = 0;
  const graph = defineGraph({
    name: uniqueName("listens-and-works"),
    version: 1,
    durability: "durable",
    graph: new StateGraph(Log)
      .addNode("listens", async () => {
        await door.pass();
        return listens();
      })
      .addNode("works", async () => {
        if (++drivers === 1) await work.pass();
        return {};
      })
      .addEdge(START, "listens")
      .addEdge(START, "works")
      .addEdge("listens", END)
      .addEdge("works", END),
  });
  await using zombie = await open(graph);
  await using cs = await open(graph);
  const threadId = uniqueName("thread");
  const starting = zombie.start(graph, { log: [] }, { threadId });
  await door.reached();
  await cs.sendEvent(threadId, paid);
  door.open();
  await vi.waitFor(async () => expect(await waitOf(cs, threadId)).toBeDefined(), { timeout: 10_000 });

  await moveClock(pool, { byMs: PAST_LEASE_MS });
  await cs.work({ until: "idle" });
  work.open();
  await starting;

  expect(await cs.drive(threadId)).toBe("completed");
  expect((await cs.result<{ log: string[] }>(threadId)).output?.log).toEqual(["paid 7"]);
});

it("an event that is being sent while its wait is recorded answers it", async () => {
  const door = gate();
  const graph = listeningBehind(door);
  await using cs = await open(graph);
  const threadId = uniqueName("thread");
  const starting = cs.start(graph, { log: [] }, { threadId });
  await door.reached();
  await database.transaction(async (tx) => {
    await insertEvent(tx, { threadId, ...paid });
    await matchEvents(tx, threadId);
    door.open();
    await somebodyWaits(pool);
  });
  await starting;

  await cs.work({ until: "idle" });
  expect((await cs.result<{ log: string[] }>(threadId)).output?.log).toEqual(["paid 7"]);
});

it("an event that meets the end of its wait stands behind it, and holds nothing that this end still needs", async () => {
  const graph = oneNode(listens);
  await using cs = await open(graph);
  const { threadId } = await cs.start(graph, { log: [] });
  const wait = (await waitOf(cs, threadId))?.id ?? "";
  let sending: Promise<boolean> | undefined;
  await database.transaction(async (tx) => {
    await lockWithGroup(tx, wait);
    sending = cs.sendEvent(threadId, paid);
    await somebodyWaits(pool);
    const text = "select from countersign.threads where thread_id = $1 for no key update nowait";
    await tx.query({ text, values: [threadId] });
    await cancelIntents(tx, { ids: [wait], by: "mia", byType: "human", reasonCode: "cancelled" });
  });

  expect(await sending).toBe(true);
  expect(await waitOf(cs, threadId)).toMatchObject({ status: "cancelled" });
  const { rows } = await pool.query("select consumed_by from countersign.events where thread_id = $1", [threadId]);
  expect(rows).toEqual([{ consumed_by: null }]);
});
