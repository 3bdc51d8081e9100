import { afterEach, expect, it } from "vitest";
import { temporal } from "../../../src/backends/temporal/index.ts";
import { type AnyGraph, type CountersignOptions, countersign } from "../../../src/index.ts";
import { testDatabase } from "../../support/database.ts";
import { effect, graphOf, type TestOutcome, uniqueName } from "../../support/effects.ts";
import { testTemporal } from "../../support/temporal.ts";

const { pool } = await testDatabase();
const { address } = await testTemporal();

/** What no caller was told of. A test that expects some takes them out. */
const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));

const open = (graphs: AnyGraph[], options: Partial<CountersignOptions> = {}) =>
  countersign({
    database: pool,
    graphs,
    backend: temporal({ address, taskQueue: uniqueName("queue") }),
    onError: (error) => errors.push(error),
    ...options,
  });

it("carries an intent out in a workflow of its own, which ends with it", async () => {
  const keys: string[] = [];
  const send = effect({
    execute: async ({ n }, { idempotencyKey }) => {
      keys.push(idempotencyKey);
      return { ref: `sent ${n}` };
    },
  });
  const graph = graphOf(send);
  await using cs = await open([graph]);
  const { threadId } = await cs.start(graph, { n: 1 });
  await cs.work({ until: "idle" });
  const { output } = await cs.result<{ outcome: TestOutcome }>(threadId);
  expect(output?.outcome).toMatchObject({ status: "succeeded", output: { ref: "sent 1" } });
  const [intent] = await cs.intents(threadId);
  expect(intent).toMatchObject({ status: "succeeded", backend: "temporal", attempt: 1 });
  expect(keys).toEqual([intent?.id]);
});
