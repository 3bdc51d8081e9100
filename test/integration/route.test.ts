import { afterEach, expect, it } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { temporal } from "../../src/backends/temporal/index.ts";
import { type AnyGraph, commit, countersign, type DurableBackend, requestDecision, route } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { effect, graphOf, MIA, NEEDS_MANAGER, uniqueName } from "../support/effects.ts";
import { onlyOne } from "../support/requests.ts";
import { testTemporal } from "../support/temporal.ts";
import { begin, endOf, graphWith, type Log, undoable } from "../support/undoing.ts";

const { pool } = await testDatabase();
const { address } = await testTemporal();

/** What no caller was told of. */
const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));

const open = (graphs: AnyGraph[], backend: DurableBackend) =>
  countersign({ database: pool, graphs, backend, onError: (error) => errors.push(error) });

const onTemporal = () => temporal({ address, taskQueue: uniqueName("queue") });
const graphNamed = (name: string) => graphOf(effect({ name, execute: async () => ({ ref: name }) }));

it("gives each commitment to its own backend, and both carry theirs out", async () => {
  const [pay, note] = [graphNamed("payment.send"), graphNamed("note.write")];
  await using cs = await open([pay, note], route({ "payment.*": onTemporal(), default: postgres() }));
  const threads = [await cs.start(pay, { n: 1 }), await cs.start(note, { n: 2 })];
  await cs.work({ until: "idle" });
  const intents = (await Promise.all(threads.map(({ threadId }) => cs.intents(threadId)))).flat();
  expect(intents.map(({ backend, status }) => `${backend} ${status}`)).toEqual([
    "temporal succeeded",
    "postgres succeeded",
  ]);
});

it("refuses to start where a commitment has two owners", async () => {
  const graph = graphNamed("payout.send");
  const embedded = postgres();
  const backend = route({ "payout.*": onTemporal(), "payout.send": embedded, default: embedded });
  await expect(open([graph], backend)).rejects.toMatchObject({ facts: { commitment: "payout.send" } });
});

it("refuses to start while an open intent belongs to a backend that is not configured; draining it lets it end there", async () => {
  const graph = graphOf(effect({ ...NEEDS_MANAGER, execute: async () => ({ ref: "r" }) }));
  const before = await open([graph], postgres());
  const { threadId } = await before.start(graph, { n: 1 });
  const [intent] = await before.intents(threadId);
  if (intent === undefined) throw new Error("no intent");
  await before.close();

  await expect(open([graph], onTemporal())).rejects.toMatchObject({
    code: "OPTION_INVALID",
    facts: { intentId: intent.id, owner: "postgres" },
  });
  // A process that has nothing to do with this commitment may start.
  await (await open([graphNamed("other.thing")], onTemporal())).close();

  await using cs = await open([graph], route({ default: onTemporal() }, { drain: [postgres()] }));
  await cs.approve(intent.id, { by: MIA, digest: intent.digest });
  const next = await cs.start(graph, { n: 2 });
  await cs.work({ until: "idle" });
  expect(await cs.intent(intent.id)).toMatchObject({ status: "succeeded", backend: "postgres" });
  expect((await cs.intents(next.threadId))[0]).toMatchObject({ status: "awaiting_decision", backend: "temporal" });
});

it("starts once what a backend that is gone owned has ended", async () => {
  const graph = graphNamed("done.thing");
  const before = await open([graph], postgres());
  await before.start(graph, { n: 1 });
  await before.work({ until: "idle" });
  await before.close();
  await (await open([graph], onTemporal())).close();
});

it("refuses to start while a thread goes on that may have to be undone by a backend that is gone", async () => {
  const log: Log = [];
  const step = undoable(log);
  const graph = graphWith([step], async () => {
    await commit(step, { n: 1 });
    return (await requestDecision({ name: "go-on", payload: {} })).status;
  });
  const before = await open([graph], postgres());
  const threadId = await begin(before, graph);
  await before.close();
  await expect(open([graph], onTemporal())).rejects.toMatchObject({
    code: "OPTION_INVALID",
    facts: { owner: "postgres" },
  });
  await using cs = await open([graph], route({ default: onTemporal() }, { drain: [postgres()] }));
  await cs.reject(onlyOne(await cs.pending({ threadId })).id, { by: MIA });
  await cs.work({ until: "idle" });
  expect((await endOf(cs, threadId)).end).toBe("rejected");
  await (await open([graph], onTemporal())).close();
});
