import { afterEach, expect, it } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { countersign, type ExecutionIntent } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { clockOf, effect, graphOf, MIA, NEEDS_MANAGER, PAST_LEASE_MS } from "../support/effects.ts";
import { onlyOne } from "../support/requests.ts";

/*
 * Somebody who may disable triggers changes a payload and its digest together, so that the two fit
 * each other and not what was approved. The database refuses to hand such a row out (G2, G3); here:
 * that it keeps nobody else from being served.
 */

const { pool } = await testDatabase();
const { later } = clockOf(pool);
const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));

const called: number[] = [];
const send = effect({
  ...NEEDS_MANAGER,
  execute: async ({ n }) => {
    called.push(n);
    return { ref: `r-${n}` };
  },
});
const graph = graphOf(send);
const open = () =>
  countersign({ database: pool, graphs: [graph], backend: postgres(), onError: (error) => errors.push(error) });

/** Runs a statement past all guards. */
async function behindTheBack(statement: string, values: unknown[]): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query("begin; set local session_replication_role = replica");
    await client.query(statement, values);
    await client.query("commit");
  } finally {
    client.release();
  }
}

const tamperWith = ({ id }: ExecutionIntent): Promise<void> =>
  behindTheBack(`update countersign.execution_intents set payload = '{"n": 666}', digest = 'forged' where id = $1`, [
    id,
  ]);

async function approved(cs: Awaited<ReturnType<typeof open>>, n: number): Promise<ExecutionIntent> {
  const intent = onlyOne((await cs.start(graph, { n })).pending);
  return cs.approve(intent.id, { by: MIA, digest: intent.digest });
}

const setAside = (intentId: string) =>
  expect.objectContaining({ code: "BOUNDARY", facts: { intentId, reason: "NOT_APPROVED" } });

it("a row that was forged after its approval never runs, is reported once, and the others of its batch run", async () => {
  await using cs = await open();
  const before = await approved(cs, 1);
  const forged = await approved(cs, 2);
  const after = await approved(cs, 3);
  await tamperWith(forged);

  await cs.work({ until: "idle" });

  expect(called.splice(0).sort()).toEqual([1, 3]);
  expect(errors.splice(0)).toEqual([setAside(forged.id)]);
  for (const { id } of [before, after]) expect(await cs.intent(id)).toMatchObject({ status: "succeeded" });
  expect(await cs.intent(forged.id)).toMatchObject({ status: "cancelled", attempt: 0 });
  // Its graph is told, and the audit trail says by whom and why.
  expect(await cs.result(forged.threadId)).toMatchObject({ output: { outcome: { status: "cancelled" } } });
  const [entry] = (await cs.audit.list(forged.threadId)).filter(({ action }) => action === "intent.cancelled");
  expect(entry).toMatchObject({ actorType: "executor_system", reasonCode: "refused", digest: "forged" });
});

it("many forged rows are set aside one by one, each reported", async () => {
  await using cs = await open();
  const forged = [await approved(cs, 4), await approved(cs, 5), await approved(cs, 6)];
  for (const intent of forged) await tamperWith(intent);
  await approved(cs, 7);

  await cs.work({ until: "idle" });

  expect(called.splice(0)).toEqual([7]);
  expect(errors.splice(0)).toEqual(expect.arrayContaining(forged.map(({ id }) => setAside(id))));
});

it("a row that was forged while its worker was dead is left for a person, and the others are taken back", async () => {
  await using cs = await open();
  const lost = [await approved(cs, 8), await approved(cs, 9)] as const;
  const ids = lost.map(({ id }) => id);
  await pool.query(
    `update countersign.execution_intents set status = 'dispatched', attempt = 1, lease_owner = 'gone',
       lease_token = 1, lease_expires_at = countersign.clock() + interval '30 seconds' where id = any($1)`,
    [ids],
  );
  await tamperWith(lost[0]);
  await later(PAST_LEASE_MS);

  await cs.work({ until: "idle" });

  expect(called.splice(0)).toEqual([9]);
  expect(errors.splice(0)).toEqual([setAside(lost[0].id)]);
  expect(await cs.intent(lost[0].id)).toMatchObject({ status: "unknown" });
  expect(await cs.intent(lost[1].id)).toMatchObject({ status: "succeeded" });
});
