import { afterEach, expect, it, vi } from "vitest";
import { createTemporalWorker, temporal } from "../../../src/backends/temporal/index.ts";
import { type CommitmentDefinition, countersign, pending } from "../../../src/index.ts";
import { testDatabase } from "../../support/database.ts";
import { deploymentOperator } from "../../support/deployments.ts";
import { type Answered, type Asked, effect, graphOf, uniqueName } from "../../support/effects.ts";
import { testTemporal } from "../../support/temporal.ts";

const { pool } = await testDatabase();
const { address } = await testTemporal();

const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));
const onError = (error: unknown) => errors.push(error);

const eventually = <Seen>(look: () => Promise<Seen>) => vi.waitFor(look, { timeout: 20_000, interval: 100 });

it("lets a pinned old worker finish what it began, while a new one takes what is new", async () => {
  const taskQueue = uniqueName("queue");
  const deployment = uniqueName("deployment");
  const { makeCurrent } = await deploymentOperator(address, deployment);
  const seenBy: Record<string, string[]> = { "v-1": [], "v-2": [] };
  /** The commitment as two builds of one application have it: its poll ends on the old one only when it is told to. */
  let signed = false;
  const commitmentOf = (buildId: "v-1" | "v-2") => {
    const definition: Partial<CommitmentDefinition<Asked, Answered>> &
      Pick<CommitmentDefinition<Asked, Answered>, "execute"> = {
      name: `${deployment}.sign`,
      pollIntervalMs: 100,
      execute: async ({ n }) => {
        seenBy[buildId]?.push(`execute ${n}`);
        return pending({ externalRef: `envelope-${n}` });
      },
      poll: async ({ input }) => {
        seenBy[buildId]?.push(`poll ${input.n}`);
        return signed ? { status: "succeeded", output: { ref: buildId } } : { status: "pending" };
      },
    };
    return effect(definition);
  };
  const [old, fresh] = [commitmentOf("v-1"), commitmentOf("v-2")];
  const graph = graphOf(old);
  await using cs = await countersign({
    ...{ database: pool, graphs: [graph], onError },
    backend: temporal({ address, taskQueue, worker: false }),
  });
  const workerOf = (commitment: typeof old, buildId: string) =>
    createTemporalWorker({
      ...{ database: pool, commitments: [commitment], address, taskQueue, onError },
      deployment: { name: deployment, buildId },
    });
  await using first = await workerOf(old, "v-1");
  await using second = await workerOf(fresh, "v-2");
  const stop = new AbortController();
  const working = [cs.work({ signal: stop.signal }), first.run({ signal: stop.signal })];
  await makeCurrent("v-1");

  const before = await cs.start(graph, { n: 1 });
  await eventually(async () => expect(seenBy["v-1"]).toContain("poll 1"));
  working.push(second.run({ signal: stop.signal }));
  await makeCurrent("v-2");
  const after = await cs.start(graph, { n: 2 });
  await eventually(async () => expect(seenBy["v-2"]).toContain("poll 2"));
  signed = true;
  const refs = await Promise.all(
    [before, after].map(async ({ threadId }) => {
      await cs.result(threadId);
      return (await cs.intents(threadId))[0]?.output;
    }),
  );
  stop.abort();
  await Promise.all(working);

  expect(refs).toEqual([{ ref: "v-1" }, { ref: "v-2" }]);
  expect(new Set(seenBy["v-1"])).toEqual(new Set(["execute 1", "poll 1"]));
  expect(new Set(seenBy["v-2"])).toEqual(new Set(["execute 2", "poll 2"]));
}, 120_000);
