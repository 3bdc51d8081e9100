import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { IntentStatus } from "../../src/index.ts";
import { hasEnded, TRANSITIONS } from "../../src/intent.ts";
import { testDatabase } from "../support/database.ts";
import { type Columns, FREE, insertDecision, insertIntent, insertThread } from "../support/rows.ts";

const { pool } = await testDatabase();
const STATUSES = Object.keys(TRANSITIONS) as IntentStatus[];
const FIRST = ["recorded", "awaiting_decision", "runnable"] as const satisfies readonly IntentStatus[];

/** "done", or why the database refused: our guard's word, the violated constraint, or Postgres' own code. */
const outcomeOf = (statement: Promise<unknown>): Promise<string> =>
  statement.then(
    () => "done",
    (error: { code: string; message: string; constraint?: string }) =>
      error.code === "CS001" ? error.message : (error.constraint ?? error.code),
  );

const intent = async (columns: Columns = {}): Promise<string> =>
  insertIntent(pool, { thread_id: await insertThread(pool), ...columns });

const update = (id: string, set: string, values: readonly unknown[] = []) =>
  pool.query(`update countersign.execution_intents set ${set} where id = $1`, [id, ...values]);

const move = (id: string, status: string) => update(id, "status = $2", [status]);

async function statusOf(id: string): Promise<string> {
  const { rows } = await pool.query("select status from countersign.execution_intents where id = $1", [id]);
  return (rows[0] as { status: string }).status;
}

async function auditOf(
  id: string,
): Promise<{ action: string; outcome: string; actor_id: string; actor_type: string }[]> {
  const { rows } = await pool.query(
    "select action, outcome, actor_id, actor_type from countersign.audit_log where intent_id = $1 order by seq",
    [id],
  );
  return rows;
}

/** An open request with these approvals on it. */
async function approvedBy(columns: Columns, ...decisions: Columns[]): Promise<string> {
  const id = await intent(columns);
  for (const decision of decisions) await insertDecision(pool, { intent_id: id, ...decision });
  return id;
}

describe("the table of moves", () => {
  it("is the same in TypeScript and in the database, for each of the 14 × 14 pairs", async () => {
    const { rows } = await pool.query<{ before: string; after: string }>(
      `select before, after from unnest($1::text[]) before, unnest($1::text[]) after
       where countersign.is_legal_move(before, after)`,
      [STATUSES],
    );
    const inDatabase = rows.map(({ before, after }) => `${before} → ${after}`).sort();
    const inCode = STATUSES.flatMap((before) => TRANSITIONS[before].map((after) => `${before} → ${after}`)).sort();
    expect(STATUSES).toHaveLength(14);
    expect(inDatabase).toEqual(inCode);
  });

  it("ends an intent in the same statuses in TypeScript and in the database", async () => {
    const { rows } = await pool.query<{ status: string; ended: boolean }>(
      "select status, countersign.has_ended(status) as ended from unnest($1::text[]) status",
      [STATUSES],
    );
    for (const { status, ended } of rows) expect(ended, status).toBe(hasEnded(status as IntentStatus));
  });

  it("holds over random walks: the database makes exactly the moves that the table allows, and audits each", async () => {
    const walks = fc.record({
      kind: fc.constantFrom("effect", "decision"),
      first: fc.constantFrom(...FIRST),
      targets: fc.array(fc.constantFrom(...STATUSES), { minLength: 4, maxLength: 14 }),
    });
    const thread_id = await insertThread(pool);
    await pool.query(WALK);
    await fc.assert(
      fc.asyncProperty(walks, async ({ kind, first, targets }) => {
        fc.pre(kind === "effect" || first !== "runnable");
        const id = await insertIntent(pool, { ...FREE, thread_id, kind, status: first });
        const { rows } = await pool.query("select walk($1, $2) as outcomes", [id, targets]);
        const { outcomes, passed } = expectedWalk(kind, first, targets);
        expect(rows).toEqual([{ outcomes }]);
        expect(await statusOf(id)).toBe(passed.at(-1));
        expect((await auditOf(id)).map((row) => row.outcome)).toEqual(passed);
      }),
      { numRuns: 100 },
    );
  });
});

/** Tries one move after the other, each by itself, and says how each ended: one round trip for a walk. */
const WALK = `
  create function walk(intent uuid, targets text[]) returns text[] language plpgsql as $$
  declare
    target text;
    outcomes text[] := '{}';
  begin
    foreach target in array targets loop
      begin
        update countersign.execution_intents set status = target where id = intent;
        outcomes := outcomes || 'done'::text;
      exception when others then
        outcomes := outcomes || sqlerrm;
      end;
    end loop;
    return outcomes;
  end $$`;

/** The same walk over the pure table: how each move ends, and the statuses that the intent passes through. */
function expectedWalk(kind: string, first: IntentStatus, targets: readonly IntentStatus[]) {
  const passed = [first];
  const outcomes = targets.map((target) => {
    const from = passed.at(-1) ?? first;
    if (!isLegal(kind, from, target)) return "ILLEGAL_TRANSITION";
    if (target !== from) passed.push(target);
    return "done";
  });
  return { outcomes, passed };
}

/** The pure table; the database adds that only effects are carried out, and only a decision ends by being approved. */
function isLegal(kind: string, from: IntentStatus, to: IntentStatus): boolean {
  if (from === to) return true;
  if (from === "awaiting_decision" && to === "succeeded" && kind !== "decision") return false;
  if ((to === "runnable" || to === "dispatched") && kind === "decision") return false;
  return TRANSITIONS[from].includes(to);
}

describe("a new intent", () => {
  it.each(STATUSES.filter((status) => !["recorded", "awaiting_decision", "runnable"].includes(status)))(
    "cannot be born %s",
    async (status) => {
      expect(await outcomeOf(intent({ ...FREE, status }))).toBe("ILLEGAL_TRANSITION");
      expect(await outcomeOf(intent({ ...FREE, kind: "decision", status }))).toBe("ILLEGAL_TRANSITION");
    },
  );

  it("cannot be born runnable without its approvals", async () => {
    expect(await outcomeOf(intent({ status: "runnable" }))).toBe("NOT_APPROVED");
  });

  it("cannot be born runnable where roles are asked for, even with no number of people", async () => {
    const rolesOnly = { ...FREE, status: "runnable", required_roles: JSON.stringify([["board"]]) };
    expect(await outcomeOf(intent(rolesOnly))).toBe("NOT_APPROVED");
  });

  it.each(["decision", "event", "timer"])(
    "of kind %s cannot be born runnable: no backend carries it out",
    async (kind) => {
      // A worker claims by commitment and backend: such a row would run the handler without any approval.
      expect(await outcomeOf(intent({ kind, min_approvers: 0, status: "runnable" }))).toBe("ILLEGAL_TRANSITION");
    },
  );

  it("of kind compensation cannot be born runnable without an effect that it undoes", async () => {
    const undoing = { kind: "compensation", min_approvers: 0, status: "runnable" };
    expect(await outcomeOf(intent(undoing))).toBe("ILLEGAL_TRANSITION");
    const notDone = await intent();
    expect(await outcomeOf(intent({ ...undoing, compensates: notDone }))).toBe("ILLEGAL_TRANSITION");
  });

  it("of kind compensation undoes an effect of its own commitment and thread, and no other", async () => {
    const thread_id = await insertThread(pool);
    const done = await insertIntent(pool, { ...FREE, thread_id, status: "runnable", compensable: true });
    for (const status of ["dispatched", "succeeded"]) await move(done, status);
    const undoing = { thread_id, kind: "compensation", min_approvers: 0, status: "runnable", compensates: done };
    expect(await outcomeOf(intent({ ...undoing, workflow_key: "payment.send@1" }))).toBe("ILLEGAL_TRANSITION");
    expect(await outcomeOf(intent({ ...undoing, thread_id: await insertThread(pool) }))).toBe("ILLEGAL_TRANSITION");
    expect(await outcomeOf(intent(undoing))).toBe("done");
  });

  it("that needs nobody may be born runnable", async () => {
    expect(await statusOf(await intent({ ...FREE, status: "runnable" }))).toBe("runnable");
  });

  it.each([
    ["A0 with R2", { ...FREE, reversibility_class: "R2" }, "person_required"],
    ["A0 with R3", { ...FREE, reversibility_class: "R3" }, "person_required"],
    ["A0 with class B", { ...FREE, action_class: "gated" }, "person_required"],
    ["A1 without anybody to approve", { ...FREE, approval_class: "A1" }, "person_required"],
    ["A2 with one person", { approval_class: "A2", min_approvers: 1 }, "two_people_required"],
    ["A3 with one person", { approval_class: "A3", min_approvers: 1 }, "two_people_required"],
    ["class C", { action_class: "forbidden" }, "execution_intents_action_class_check"],
    ["an approval class that nobody knows", { approval_class: "A9" }, "execution_intents_approval_class_check"],
    ["no people at all, minus one", { min_approvers: -1 }, "execution_intents_min_approvers_check"],
    ["a blank idempotency key", { idempotency_key: "" }, "execution_intents_idempotency_key_check"],
    ["a blank correlation id", { correlation_id: "" }, "execution_intents_correlation_id_check"],
  ])("with %s is refused by a constraint", async (_name, columns, constraint) => {
    expect(await outcomeOf(intent(columns))).toBe(constraint);
  });
});

describe("a request cannot become runnable", () => {
  const two = { approval_class: "A2", min_approvers: 2 };
  const seats = { ...two, required_roles: JSON.stringify([["head"], ["legal", "finance"]]) };

  it.each<[string, Columns, Columns[]]>([
    ["without a decision", {}, []],
    ["with an approval of another digest", {}, [{ digest: "d-0" }]],
    ["with an approval of an earlier round", { decision_round: 2 }, [{ round: 1 }]],
    ["with a rejection", {}, [{ verdict: "reject" }]],
    ["with one person of two", two, [{}]],
    ["with the proposer among two people (A2)", { ...two, proposed_by: "mia" }, [{}, { principal_id: "ben" }]],
    [
      "with a third person's seat taken by the proposer (A3)",
      { approval_class: "A3", min_approvers: 3, proposed_by: "mia" },
      [{}, { principal_id: "ben" }, { principal_id: "cay" }],
    ],
    [
      "with one person holding both roles",
      seats,
      [{ principal_roles: ["head", "legal"] }, { principal_id: "ben", principal_roles: ["intern"] }],
    ],
    [
      "with two people for the same role",
      seats,
      [{ principal_roles: ["head"] }, { principal_id: "ben", principal_roles: ["head"] }],
    ],
    [
      "with the proposer in one of the roles (A2)",
      { ...seats, proposed_by: "mia" },
      [
        { principal_roles: ["head"] },
        { principal_id: "ben", principal_roles: ["legal"] },
        { principal_id: "cay", principal_roles: ["finance"] },
      ],
    ],
    [
      "with a role that differs in its case",
      seats,
      [{ principal_roles: ["HEAD"] }, { principal_id: "ben", principal_roles: ["legal"] }],
    ],
  ])("%s", async (_name, columns, decisions) => {
    const id = await approvedBy(columns, ...decisions);
    expect(await outcomeOf(move(id, "runnable"))).toBe("NOT_APPROVED");
    expect(await statusOf(id)).toBe("awaiting_decision");
    expect(await auditOf(id)).toHaveLength(1);
  });

  it("with the same person twice: the second approval is refused", async () => {
    const id = await approvedBy(two, { principal_id: "mia" });
    expect(await outcomeOf(insertDecision(pool, { intent_id: id, principal_id: "mia" }))).not.toBe("done");
    expect(await outcomeOf(move(id, "runnable"))).toBe("NOT_APPROVED");
  });

  it("once it was rejected, whoever approves then", async () => {
    const id = await approvedBy({}, {});
    await move(id, "rejected");
    expect(await outcomeOf(move(id, "runnable"))).toBe("ILLEGAL_TRANSITION");
  });
});

describe("a request becomes runnable", () => {
  const seats = { approval_class: "A2", min_approvers: 2, required_roles: JSON.stringify([["head"], ["legal"]]) };

  it.each<[string, Columns, Columns[]]>([
    ["with the one approval that it asks for", {}, [{}]],
    ["with its proposer's own approval, below A2", { proposed_by: "mia" }, [{}]],
    ["with an edit, which is an approval", {}, [{ verdict: "edit" }]],
    [
      "when people can be moved between the seats until all are filled",
      seats,
      [
        { principal_id: "ann", principal_roles: ["head", "legal"] },
        { principal_id: "ben", principal_roles: ["head"] },
      ],
    ],
    [
      "with more people than it asks for, in whatever order",
      seats,
      [
        { principal_id: "ann", principal_roles: ["intern"] },
        { principal_id: "ben", principal_roles: ["legal"] },
        { principal_id: "cay", principal_roles: ["head"] },
      ],
    ],
  ])("%s", async (_name, columns, decisions) => {
    const id = await approvedBy(columns, ...decisions);
    await move(id, "runnable");
    expect(await statusOf(id)).toBe("runnable");
  });
});

describe("what was approved is what runs", () => {
  it.each([
    ["runnable", []],
    ["dispatched", ["dispatched"]],
    ["succeeded", ["dispatched", "succeeded"]],
    ["unknown", ["dispatched", "unknown"]],
  ] as const)("the payload, digest and key are fixed once it is %s", async (_status, moves) => {
    const id = await approvedBy({}, {});
    for (const status of ["runnable", ...moves]) await move(id, status);
    for (const set of [
      "payload = '{}'",
      "digest = 'd-2'",
      "idempotency_key = 'other'",
      "payload = '{}', digest = 'd-2'",
    ]) {
      expect(await outcomeOf(update(id, set)), set).toMatch(/^(PAYLOAD|IDENTITY)_FIXED$/);
    }
  });

  it("the payload of an open request does not change without its digest, nor the digest without the payload", async () => {
    const id = await intent();
    expect(await outcomeOf(update(id, "payload = '{}'"))).toBe("PAYLOAD_FIXED");
    expect(await outcomeOf(update(id, "digest = 'd-2'"))).toBe("PAYLOAD_FIXED");
  });

  it("the payload of a dead letter is fixed, too: a replay runs what was approved", async () => {
    const id = await approvedBy({}, {});
    for (const status of ["runnable", "dispatched", "failed"]) await move(id, status);
    expect(await outcomeOf(update(id, "payload = '{}'"))).toBe("PAYLOAD_FIXED");
    expect(await outcomeOf(update(id, "payload = '{}', digest = 'd-2'"))).toBe("PAYLOAD_FIXED");
  });
});

describe("an edit by SQL", () => {
  it("of an open request voids the approvals before it", async () => {
    const id = await approvedBy({}, {});
    await update(id, "payload = '{}', digest = 'd-2'");
    expect(await outcomeOf(move(id, "runnable"))).toBe("NOT_APPROVED");
  });

  it("of an open request is audited, whoever made it", async () => {
    const id = await intent();
    await update(id, "payload = '{}', digest = 'd-2'");
    expect(await auditOf(id)).toHaveLength(2);
  });
});

describe("what an intent is", () => {
  it.each([
    "approval_class = 'A0'",
    "reversibility_class = 'R0'",
    "sensitivity_class = 'S0'",
    "side_effect_class = 'internal_write'",
    "action_class = 'auto'",
    "backend = 'other'",
    "commitment = 'mail.read'",
    "version = 2",
    "workflow_key = 'mail.read@1'",
    "kind = 'decision'",
    "proposed_by = 'somebody-else'",
    "proposed_digest = 'd-2'",
    "semantics = 'at-most-once'",
    "tenant = 'other'",
    "correlation_id = 'c-2'",
    "task_id = 'task-2'",
    "created_at = now() - interval '1 day'",
    "id = gen_random_uuid()",
    "min_approvers = 1",
    "required_roles = '[]'",
    "decision_round = 0",
    "group_id = gen_random_uuid()",
    "compensable = true",
    "evidence = '{}'",
    "actor_type = 'human'",
  ])("never changes: %s", async (set) => {
    const id = await intent({ min_approvers: 2, required_roles: JSON.stringify([["head"]]) });
    expect(await outcomeOf(update(id, set))).toBe("IDENTITY_FIXED");
  });

  it("may ask for more people later, and then needs them", async () => {
    const id = await approvedBy({}, {});
    await update(id, "min_approvers = 2");
    expect(await outcomeOf(move(id, "runnable"))).toBe("NOT_APPROVED");
  });
});

describe("the audit trail", () => {
  it("has a row for a legal change of status by SQL, with the database user as its actor", async () => {
    const id = await intent();
    await move(id, "rejected");
    const { rows } = await pool.query<{ name: string }>("select session_user as name");
    expect(await auditOf(id)).toEqual([
      expect.objectContaining({ action: "intent.recorded" }),
      { action: "intent.rejected", outcome: "rejected", actor_type: "human", actor_id: rows[0]?.name },
    ]);
  });

  it.each(["audit_log", "decisions"])(
    "and the decisions are append-only: no UPDATE, DELETE or TRUNCATE of %s",
    async (table) => {
      await approvedBy({}, {});
      const before = await pool.query(`select * from countersign.${table} order by 1, 2`);
      for (const statement of [
        `update countersign.${table} set digest = 'other'`,
        `delete from countersign.${table}`,
        `truncate countersign.${table}`,
        `truncate countersign.${table} cascade`,
      ]) {
        expect(await outcomeOf(pool.query(statement)), statement).toBe("APPEND_ONLY");
      }
      const after = await pool.query(`select * from countersign.${table} order by 1, 2`);
      expect(after.rows).toEqual(before.rows);
      expect(before.rows.length).toBeGreaterThan(0);
    },
  );
});
