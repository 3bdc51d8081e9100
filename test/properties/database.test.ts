import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { loadAudit } from "../../src/database/audit-log.ts";
import { postgresDatabase } from "../../src/database/postgres.ts";
import { verifyAuditChain } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { DatabaseLives, type RowLife } from "../support/database-lives.ts";
import { type Life, lives } from "../support/intent-commands.ts";
import { type Command, IntentModel, isEdge, STATUSES, type Status } from "../support/intent-model.ts";
import { sharedTransaction } from "../support/shared-transaction.ts";

const { pool } = await testDatabase();

/** What somebody with SQL and no scruples tries on a row. */
const attack = fc.oneof(
  { arbitrary: fc.constantFrom(...STATUSES).map((status) => `status = '${status}'`), weight: 3 },
  {
    arbitrary: fc.constantFrom(
      `payload = '{"n": 99}'`,
      "digest = 'another'",
      "min_approvers = min_approvers - 1",
      "backend = 'another'",
      "kind = 'timer'",
      "commitment = 'another'",
      "semantics = case semantics when 'at-most-once' then 'at-least-once' else 'at-most-once' end",
      "proposed_by = 'nobody'",
      "approval_class = case approval_class when 'A0' then 'A1' else 'A0' end",
      "thread_id = (select min(thread_id) from countersign.threads t where t.thread_id <> i.thread_id)",
    ),
    weight: 1,
  },
);

/** Tries one change of each row, each by itself, and says how each ended: one round trip for all lives. */
const ATTACK = `
  create function attack(ids uuid[], changes text[]) returns text[] language plpgsql as $$
  declare
    outcomes text[] := '{}';
  begin
    for n in 1 .. cardinality(ids) loop
      begin
        execute format('update countersign.execution_intents i set %s where id = %L', changes[n], ids[n]);
        outcomes := outcomes || 'done'::text;
      exception when others then
        outcomes := outcomes || case sqlstate when 'CS001' then 'refused' when '23514' then 'refused' else sqlerrm end;
      end;
    end loop;
    return outcomes;
  end $$`;
await pool.query(ATTACK);

/** A change of status that the model allows is no attack; it would only make the two lives different. */
function isAttack(model: IntentModel, change: string): boolean {
  const [, status] = change.match(/^status = '(\w+)'$/) ?? [];
  if (status === undefined) return true;
  if (status === model.status) return false;
  // People's and the worker's own moves are legal edges; without the decisions they are refused all the same.
  const unapproved = model.status === "awaiting_decision" && (status === "runnable" || status === "succeeded");
  return unapproved || !isEdge(model.status, status as Status);
}

interface Attacked {
  readonly life: Life;
  readonly attacks: readonly string[];
}

const attacked: fc.Arbitrary<Attacked> = lives({ maxCommands: 20 }).chain((life) =>
  fc
    .array(attack, { minLength: life.commands.length, maxLength: life.commands.length })
    .map((attacks) => ({ life, attacks })),
);

/** The model's half of a round: its command, then the sweep, then the deadline. */
function apply(model: IntentModel, command: Command | undefined): void {
  if (command !== undefined && command.do !== "deadline" && command.do !== "expire") model.apply(command);
  model.apply({ do: "expire" });
  if (command?.do === "deadline") model.apply(command);
}

interface Row {
  readonly status: Status;
  readonly attempt: number;
  readonly payload: { readonly n: number };
  readonly decision_round: number;
  readonly cancel_requested: boolean;
}

const asModelled = (model: IntentModel): Row => ({
  status: model.status,
  attempt: model.attempt,
  payload: { n: model.payload },
  decision_round: model.birth.semantics === "at-most-once" ? model.round : 1,
  cancel_requested: model.cancelRequested,
});

async function liveAll(batch: readonly Attacked[], seen: Set<Status>): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query("begin");
    const births = batch.map(({ life }) => life.birth);
    const rows = await DatabaseLives.begin(sharedTransaction(client), births);
    const models = births.map((birth) => new IntentModel(birth));
    const rounds = Math.max(...batch.map(({ life }) => life.commands.length));
    for (let round = 0; round < rounds; round++) {
      const orders = batch.flatMap(({ life }, n) => {
        const command = life.commands[round];
        return command === undefined ? [] : [{ life: rows.lives[n] as RowLife, command }];
      });
      await rows.carryOut(orders);
      models.forEach((model, n) => {
        apply(model, batch[n]?.life.commands[round]);
        seen.add(model.status);
      });
      await attackAll(batch, round, models, rows, client);
      const { rows: found } = await client.query<Row>(
        `select status, attempt, payload, decision_round, cancel_requested from unnest($1::uuid[]) with ordinality u(id, n)
         join countersign.execution_intents using (id) order by n`,
        [rows.lives.map(({ id }) => id)],
      );
      expect(found, `after round ${round + 1}`).toEqual(models.map(asModelled));
    }
    await client.query("commit");
    await compareTrails(models, rows);
  } finally {
    await client.query("rollback");
    client.release();
  }
}

async function attackAll(
  batch: readonly Attacked[],
  round: number,
  models: readonly IntentModel[],
  { lives: rows }: DatabaseLives,
  client: { query(text: string, values: unknown[]): Promise<{ rows: { outcomes: string[] }[] }> },
): Promise<void> {
  const attacks = batch.flatMap(({ attacks }, n) => {
    const change = attacks[round];
    return change !== undefined && isAttack(models[n] as IntentModel, change) ? [{ id: rows[n]?.id, change }] : [];
  });
  const ids = attacks.map(({ id }) => id);
  const changes = attacks.map(({ change }) => change);
  const result = await client.query("select attack($1, $2) as outcomes", [ids, changes]);
  expect(result.rows[0]?.outcomes.map((outcome, n) => `${changes[n]}: ${outcome}`)).toEqual(
    changes.map((change) => `${change}: refused`),
  );
}

/** Every change is on record, in its order, in a chain that holds. */
async function compareTrails(models: readonly IntentModel[], { lives: rows }: DatabaseLives): Promise<void> {
  const database = postgresDatabase(pool, { schema: "countersign" });
  for (const [n, { threadId }] of rows.entries()) {
    const audit = await loadAudit(database, { threadId });
    expect(verifyAuditChain(audit)).toBeUndefined();
    expect(audit.filter((row) => row.intentId !== null).map((row) => row.outcome)).toEqual(models[n]?.trail);
  }
}

describe("the database, beside the same model", () => {
  it("lives about 2,000 random lives as the model does, and refuses a raw illegal change at every turn of them", async () => {
    const seen = new Set<Status>();
    let lived = 0;
    const batch = fc.array(attacked, { minLength: 1, maxLength: 250, size: "max" });
    const live = (numRuns: number) =>
      fc.assert(
        fc.asyncProperty(batch, async (each) => {
          await liveAll(each, seen);
          lived += each.length;
        }),
        { numRuns, interruptAfterTimeLimit: 400_000 },
      );
    await live(20);
    const every = STATUSES.filter((status) => status !== "recorded").sort();
    // Some states are rare enough for chance to pass them by: then some more lives are lived.
    for (let more = 0; more < 10 && seen.size < every.length; more++) await live(5);
    expect(lived).toBeGreaterThan(1_000);
    expect([...seen].sort()).toEqual(every);
  }, 600_000);
});
