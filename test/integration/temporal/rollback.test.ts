import { afterEach, expect, it, vi } from "vitest";
import { createTemporalWorker, temporal } from "../../../src/backends/temporal/index.ts";
import { countersign, pending } from "../../../src/index.ts";
import { testDatabase } from "../../support/database.ts";
import { deploymentOperator } from "../../support/deployments.ts";
import { effect, graphOf, MIA, NEEDS_MANAGER, type TestCommitment, uniqueName } from "../../support/effects.ts";
import { testTemporal } from "../../support/temporal.ts";

/*
 * The rehearsal of docs/temporal.md, "Roll back": a version is deployed, turns out to be broken, and is taken
 * back while it has intents under way. Its operator's commands are the ones that the runbook names.
 */

const { pool } = await testDatabase();
const { address } = await testTemporal();

const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));
const onError = (error: unknown) => errors.push(error);

const eventually = <Seen>(look: () => Promise<Seen>) => vi.waitFor(look, { timeout: 30_000, interval: 100 });

it("rolls a broken version back: what it began is moved or cancelled, and nothing is sent twice", async () => {
  const taskQueue = uniqueName("queue");
  const deployment = uniqueName("deployment");
  const { makeCurrent, moveTo } = await deploymentOperator(address, deployment);
  /** What the outside world was asked for: by which build, for which call, under which key. */
  const ledger: string[] = [];
  const keys = new Map<string, Set<string>>();
  let signed = false;

  /** The two commitments as one build of the application has them. */
  const buildOf = (buildId: "good" | "broken") => {
    const note = (what: string, key: string) => {
      ledger.push(`${buildId}: ${what}`);
      keys.set(what, (keys.get(what) ?? new Set()).add(key));
    };
    const pay = effect({
      ...{ name: `${deployment}.pay`, retry: { maxAttempts: 50, initialIntervalMs: 100, maxIntervalMs: 200 } },
      execute: async ({ n }, { idempotencyKey }) => {
        note(`pay ${n}`, idempotencyKey);
        if (buildId === "broken") throw new Error("the release that should never have been");
        return { ref: `paid by ${buildId}` };
      },
    });
    const sign = effect({
      ...{ ...NEEDS_MANAGER, name: `${deployment}.sign`, pollIntervalMs: 100 },
      execute: async ({ n }, { idempotencyKey }) => {
        note(`sign ${n}`, idempotencyKey);
        return pending({ externalRef: `envelope-${n}` });
      },
      poll: async () => (signed ? { status: "succeeded", output: { ref: buildId } } : { status: "pending" }),
    });
    return [pay, sign] as const;
  };
  const workerOf = (commitments: readonly TestCommitment[], buildId: string) =>
    createTemporalWorker({
      ...{ database: pool, commitments, address, taskQueue, onError },
      deployment: { name: deployment, buildId },
    });

  const [good, broken] = [buildOf("good"), buildOf("broken")];
  const [paying, signing] = [graphOf(good[0]), graphOf(good[1])];
  await using cs = await countersign({
    ...{ database: pool, graphs: [paying, signing], onError, pollIntervalMs: 100 },
    backend: temporal({ address, taskQueue, worker: false }),
  });
  const start = async (graph: typeof paying, n: number) => {
    const { threadId } = await cs.start(graph, { n });
    const [intent] = await cs.intents(threadId);
    if (intent === undefined) throw new Error("nothing was recorded");
    return intent;
  };
  const approve = ({ id, digest }: { id: string; digest: string }) => cs.approve(id, { by: MIA, digest });
  const statusOf = async ({ threadId }: { threadId: string }) => (await cs.intents(threadId))[0]?.status;

  await using old = await workerOf(good, "good");
  const stop = new AbortController();
  const working = [cs.work({ signal: stop.signal }), old.run({ signal: stop.signal })];
  await makeCurrent("good");
  const before = await start(paying, 1);
  await cs.result(before.threadId);

  // Deploy. The new version begins a payment that it cannot make, and two envelopes.
  const release = await workerOf(broken, "broken");
  working.push(release.run());
  await makeCurrent("broken");
  const [payment, envelope, unwanted] = [await start(paying, 2), await start(signing, 3), await start(signing, 4)];
  const undecided = await start(signing, 5);
  await approve(envelope);
  await approve(unwanted);
  await eventually(async () => {
    expect(ledger).toContain("broken: pay 2");
    expect([await statusOf(envelope), await statusOf(unwanted)]).toEqual(["awaiting_external", "awaiting_external"]);
  });

  // Roll back, and end the broken workers without waiting for what they began.
  await makeCurrent("good");
  await release.close();
  const atRollback = ledger.length;
  await cs.cancelIntent(unwanted.id, { by: MIA });
  for (const { id } of [payment, envelope]) await moveTo("good", id);
  await cs.reject(undecided.id, { by: MIA, digest: undecided.digest, reason: "withdrawn with the release" });
  const after = await start(paying, 6);
  signed = true;
  for (const { threadId } of [payment, envelope, unwanted, undecided, after]) await cs.result(threadId);
  stop.abort();
  await Promise.all(working);

  const ended = async ({ threadId }: { threadId: string }) => {
    const { status, output } = (await cs.intents(threadId))[0] ?? {};
    return [status, output];
  };
  expect(await ended(payment)).toEqual(["succeeded", { ref: "paid by good" }]);
  expect(await ended(envelope)).toEqual(["succeeded", { ref: "good" }]);
  expect(await ended(unwanted)).toEqual(["cancelled", null]);
  expect(await ended(undecided)).toEqual(["rejected", null]);
  expect(await ended(after)).toEqual(["succeeded", { ref: "paid by good" }]);
  // After the rollback the broken build was asked for nothing, and what had been sent was not sent again.
  expect(ledger.slice(atRollback).sort()).toEqual(["good: pay 2", "good: pay 6"]);
  expect(ledger.filter((line) => line.includes("sign")).sort()).toEqual(["broken: sign 3", "broken: sign 4"]);
  expect([...keys.values()].map((each) => each.size)).toEqual([...keys.keys()].map(() => 1));
  expect(await cs.audit.verify()).toEqual([]);
});
