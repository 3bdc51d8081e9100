import { randomUUID } from "node:crypto";
import type pg from "pg";

/** What a test says of a row; the rest is filled in. Column names, since these tests go past the SDK. */
export type Columns = Readonly<Record<string, unknown>>;

/** A durable thread that waits, written by SQL. Returns its id. */
export async function insertThread(db: Pick<pg.Pool, "query">, columns: Columns = {}): Promise<string> {
  const row: Columns = {
    thread_id: randomUUID(),
    graph: "raw",
    graph_version: 1,
    durability: "durable",
    status: "waiting",
    correlation_id: "c-1",
    proposed_by: "agent:raw",
    input_type: "json",
    input: Buffer.from("null"),
    ready_at: new Date(),
    created_at: new Date(),
    updated_at: new Date(),
    ...columns,
  };
  await insert(db, "threads", row);
  return String(row.thread_id);
}

/** An open request of class A1/R1/S1 that one person must approve, written by SQL. Returns its id. */
export async function insertIntent(db: Pick<pg.Pool, "query">, columns: Columns): Promise<string> {
  const id = randomUUID();
  const row: Columns = {
    id,
    tenant: "default",
    kind: "effect",
    commitment: "mail.send",
    version: 1,
    workflow_key: "mail.send@1",
    idempotency_key: id,
    correlation_id: "c-1",
    side_effect_class: "external_message",
    approval_class: "A1",
    reversibility_class: "R1",
    sensitivity_class: "S1",
    action_class: "gated",
    proposed_by: "agent:raw",
    actor_type: "automated_workflow",
    payload: JSON.stringify({ to: "a@example.org" }),
    payload_summary: "mail.send",
    digest: "d-1",
    proposed_digest: "d-1",
    min_approvers: 1,
    required_roles: "[]",
    status: "awaiting_decision",
    semantics: "at-least-once",
    backend: "postgres",
    waits: true,
    compensable: false,
    not_before: new Date(),
    checkpoint_ns: "",
    checkpoint_id: "cp-1",
    task_id: "task-1",
    action: "intent.recorded",
    changed_by_type: "automated_workflow",
    changed_by: "agent:raw",
    created_at: new Date(),
    updated_at: new Date(),
    ...columns,
  };
  await insert(db, "execution_intents", row);
  return String(row.id);
}

/** The classes of an effect that nobody needs to sign off. */
export const FREE: Columns = {
  side_effect_class: "internal_write",
  approval_class: "A0",
  reversibility_class: "R0",
  action_class: "auto",
  min_approvers: 0,
};

/** A recorded approval, written by SQL. */
export async function insertDecision(db: Pick<pg.Pool, "query">, columns: Columns): Promise<void> {
  await insert(db, "decisions", {
    round: 1,
    verdict: "approve",
    principal_id: "mia",
    principal_roles: [],
    digest: "d-1",
    at: new Date(),
    ...columns,
  });
}

async function insert(db: Pick<pg.Pool, "query">, table: string, row: Columns): Promise<void> {
  const names = Object.keys(row);
  await db.query(
    `insert into countersign.${table} (${names.join(", ")}) values (${names.map((_, at) => `$${at + 1}`).join(", ")})`,
    Object.values(row),
  );
}
