import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { afterEach, expect, it, vi } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { commit, countersign, defineGraph, sleep } from "../../src/index.ts";
import { moveClock } from "../../src/testing/clock.ts";
import { testDatabase } from "../support/database.ts";
import { effect, MIA, NEEDS_MANAGER, uniqueName } from "../support/effects.ts";
import { onlyOne } from "../support/requests.ts";

const { pool } = await testDatabase();
const DAY_MS = 24 * 3_600_000;
afterEach(async () => {
  vi.useRealTimers();
  await moveClock(pool, { byMs: 0 });
});

/** Two steps, an approval, an effect and a last step: what a clock could put in another order. */
function journey() {
  const calls: number[] = [];
  const send = effect({
    ...NEEDS_MANAGER,
    execute: async ({ n }) => {
      calls.push(n);
      return { ref: `r-${n}` };
    },
  });
  const State = Annotation.Root({
    steps: Annotation<string[]>({ reducer: (a, b) => [...a, ...b], default: () => [] }),
  });
  const graph = defineGraph({
    name: uniqueName("journey"),
    version: 1,
    durability: "durable",
    commitments: [send],
    graph: new StateGraph(State)
      .addNode("pack", () => ({ steps: ["packed"] }))
      .addNode("send", async () => ({ steps: [(await commit(send, { n: 1 })).status] }))
      .addNode("again", async () => ({ steps: [(await commit(send, { n: 2 })).status] }))
      .addEdge(START, "pack")
      .addEdge("pack", "send")
      .addEdge("send", "again")
      .addEdge("again", END),
  });
  return { graph, calls };
}

/** Lives it through, with a jump of a clock before each move. */
async function travel(
  jump: () => void | Promise<void>,
): Promise<{ output: unknown; calls: number[]; breaks: unknown }> {
  const { graph, calls } = journey();
  await using cs = await countersign({ database: pool, graphs: [graph], backend: postgres() });
  await jump();
  const { threadId } = await cs.start(graph, {});
  for (let decision = 0; decision < 2; decision++) {
    await jump();
    const { id, digest } = onlyOne(await cs.pending({ threadId }));
    await cs.approve(id, { by: MIA, digest });
    await jump();
    await cs.work({ until: "idle" });
  }
  const { output } = await cs.result(threadId);
  return { output, calls, breaks: await cs.audit.verify({ threadId }) };
}

const arrived = { output: { steps: ["packed", "succeeded", "succeeded"] }, calls: [1, 2], breaks: [] };

it.each([
  ["forward", 1],
  ["back", -1],
])(
  "a machine whose clock jumps a day %s at every turn lives through it, each step and each effect once",
  async (_way, sign) => {
    let now = Date.now();
    const jump = (): void => {
      now += sign * DAY_MS;
      vi.useFakeTimers({ now, toFake: ["Date"] });
    };
    expect(await travel(jump)).toEqual(arrived);
  },
);

it("a machine whose clock goes to and fro lives through it, too", async () => {
  let turn = 0;
  const jump = (): void => {
    turn++;
    vi.useFakeTimers({ now: Date.now() + (turn % 2 === 0 ? -3 : 2) * DAY_MS, toFake: ["Date"] });
  };
  expect(await travel(jump)).toEqual(arrived);
});

it("a database whose clock jumps an hour forward at every turn lives through it, each step and each effect once", async () => {
  let byMs = 0;
  const jump = (): Promise<void> => {
    byMs += 3_600_000;
    return moveClock(pool, { byMs });
  };
  expect(await travel(jump)).toEqual(arrived);
});

it("a database whose clock was put back an hour goes on when it has caught up, each step and each effect once", async () => {
  const { graph, calls } = journey();
  await using cs = await countersign({ database: pool, graphs: [graph], backend: postgres() });
  const { threadId } = await cs.start(graph, {});
  for (const done of [[1], [1, 2]]) {
    const { id, digest } = onlyOne(await cs.pending({ threadId }));
    await moveClock(pool, { byMs: -3_600_000 });
    await cs.approve(id, { by: MIA, digest });
    await cs.work({ until: "idle" });
    // What is not to be before a time is not done before it: late, never early.
    expect(calls).toEqual(done.slice(0, -1));
    await moveClock(pool, { byMs: 0 });
    await cs.work({ until: "idle" });
    expect(calls).toEqual(done);
  }
  expect((await cs.result(threadId)).output).toEqual(arrived.output);
  expect(await cs.audit.verify({ threadId })).toEqual([]);
});

it("a timer ends when the database's clock says so: not early for a machine that is ahead, and late for one that was put back", async () => {
  const State = Annotation.Root({ woke: Annotation<boolean> });
  const graph = defineGraph({
    name: uniqueName("sleeper"),
    version: 1,
    durability: "durable",
    graph: new StateGraph(State)
      .addNode("nap", async () => {
        await sleep(3_600_000);
        return { woke: true };
      })
      .addEdge(START, "nap")
      .addEdge("nap", END),
  });
  await using cs = await countersign({ database: pool, graphs: [graph], backend: postgres() });
  const { threadId } = await cs.start(graph, {});
  const statusAfter = async (): Promise<string> => {
    await cs.work({ until: "idle" });
    return cs.drive(threadId);
  };
  vi.useFakeTimers({ now: Date.now() + DAY_MS, toFake: ["Date"] });
  expect(await statusAfter()).toBe("waiting");
  vi.useRealTimers();
  await moveClock(pool, { byMs: -3_600_000 });
  expect(await statusAfter()).toBe("waiting");
  await moveClock(pool, { byMs: 3_600_001 });
  expect(await statusAfter()).toBe("completed");
});

it("a lease that was taken before the clock was put back holds on, and is taken over when the time has come", async () => {
  const { graph, calls } = journey();
  await using cs = await countersign({ database: pool, graphs: [graph], backend: postgres() });
  const { threadId } = await cs.start(graph, {});
  const { id, digest } = onlyOne(await cs.pending({ threadId }));
  await cs.approve(id, { by: MIA, digest });
  // A worker that was lost after its claim, an hour before the clock was put back.
  await pool.query(
    `update countersign.execution_intents set status = 'dispatched', attempt = 1, lease_owner = 'gone', lease_token = 1,
       lease_expires_at = countersign.clock() + interval '30 seconds' where id = $1`,
    [id],
  );
  await moveClock(pool, { byMs: -3_600_000 });
  await cs.work({ until: "idle" });
  expect(calls).toEqual([]);
  await moveClock(pool, { byMs: 31_000 });
  await cs.work({ until: "idle" });
  expect(calls).toEqual([1]);
});
