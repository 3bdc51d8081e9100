import { randomUUID } from "node:crypto";
import { execute } from "../../src/backends/execute.ts";
import { claimIntents, rescueIntents, type Settlement, settleIntents } from "../../src/database/claims.ts";
import type { Database } from "../../src/database/client.ts";
import { moveEffect } from "../../src/database/compensation.ts";
import { cancelIntents } from "../../src/database/decisions.ts";
import { endFromOutside, replayIntent } from "../../src/database/external.ts";
import { loadIntent } from "../../src/database/intents.ts";
import { expireIntents } from "../../src/database/sweep.ts";
import { type AnyCommitment, type ExecutionIntent, isCountersignError } from "../../src/index.ts";
import { requirementOf } from "../../src/policy.ts";
import { recordDecision } from "../../src/runtime/decide.ts";
import { digestOfPayload, scripted, workerSignals } from "./core-life.ts";
import { type Answer, type Birth, type Command, PEOPLE, PROPOSER } from "./intent-model.ts";

/** One life on the database: a thread with one intent, of a kind of its own. */
export interface RowLife {
  readonly id: string;
  readonly threadId: string;
  readonly birth: Birth;
  readonly commitment: AnyCommitment;
  readonly script: (answer: Answer) => void;
  /** As it was claimed last. */
  claimed?: ExecutionIntent;
}

/** What the next command of a life is. */
export interface Order {
  readonly life: RowLife;
  readonly command: Command;
}

const BACKEND = "postgres";
let made = 0;

/** Many lives, written by one statement, and moved on by our own database functions, many with each call. */
export class DatabaseLives {
  readonly #db: Database;
  readonly lives: readonly RowLife[];

  private constructor(db: Database, lives: readonly RowLife[]) {
    this.#db = db;
    this.lives = lives;
  }

  static async begin(db: Database, births: readonly Birth[]): Promise<DatabaseLives> {
    const lives = births.map((birth): RowLife => {
      const [commitment, script] = scripted(`life-${++made}.step`, birth);
      return { id: randomUUID(), threadId: randomUUID(), birth, commitment, script };
    });
    await db.query({ text: INSERT_THREADS, values: [lives.map((life) => life.threadId)] });
    await db.query({ text: INSERT_INTENTS, values: [JSON.stringify(lives.map(rowOf))] });
    return new DatabaseLives(db, lives);
  }

  /**
   * Carries out one command of each life; what the database refuses changes nothing. Then the sweep comes
   * by, and only then new deadlines pass: each is overdue for a whole round before it is swept.
   */
  async carryOut(orders: readonly Order[]): Promise<void> {
    const of = (what: Command["do"]): RowLife[] =>
      orders.filter(({ command }) => command.do === what).map(({ life }) => life);
    await this.#claim(of("claim"));
    await this.#settle(orders);
    await this.#crash(of("crash"));
    await this.#cancel(of("cancel"));
    for (const order of orders) await this.#alone(order);
    await this.#db.transaction(expireIntents);
    await this.#passDeadlines(of("deadline"));
  }

  async #claim(lives: readonly RowLife[]): Promise<void> {
    const kinds = lives.map((life) => ({ workflowKey: life.commitment.workflowKey, slots: 1 }));
    const claim = { worker: "worker-1", kinds, limit: 1_000, leaseMs: 30_000 };
    const stolen = await claimIntents(this.#db, { ...claim, backend: "another" });
    if (stolen.length > 0) throw new Error("another backend claimed what is not its own (G7)");
    const claimed = new Map((await claimIntents(this.#db, { ...claim, backend: BACKEND })).map((i) => [i.id, i]));
    for (const life of lives) {
      const intent = claimed.get(life.id);
      if (intent !== undefined) life.claimed = intent;
    }
  }

  async #settle(orders: readonly Order[]): Promise<void> {
    const cancelled = await this.#cancelRequested();
    const settlements: Settlement[] = [];
    for (const { life, command } of orders) {
      const { claimed, commitment } = life;
      if (claimed === undefined || (command.do !== "settle" && command.do !== "settle late")) continue;
      life.script(command.answer);
      // Late is who held it before this one, if there was anybody.
      const intent = command.do === "settle" ? claimed : { ...claimed, leaseToken: claimed.leaseToken - 1 };
      const signals = workerSignals(command.do === "settle" && command.heard && cancelled.has(life.id));
      settlements.push(await execute({ intent, effect: intent, commitment, maxPayloadBytes: 1_000, ...signals }));
    }
    await settleIntents(this.#db, { backend: BACKEND, worker: "worker-1", settlements });
  }

  async #cancelRequested(): Promise<Set<string>> {
    const rows = await this.#db.query<{ id: string }>({
      text: "select id from countersign.execution_intents where id = any($1::uuid[]) and cancel_requested",
      values: [this.lives.map(({ id }) => id)],
    });
    return new Set(rows.map(({ id }) => id));
  }

  async #crash(lives: readonly RowLife[]): Promise<void> {
    await this.#db.query({
      text: `update countersign.execution_intents set lease_expires_at = countersign.clock() - interval '1 second'
             where id = any($1::uuid[]) and status = 'dispatched'`,
      values: [lives.map(({ id }) => id)],
    });
    const kinds = lives.map(({ commitment, birth: { maxAttempts } }) => ({
      workflowKey: commitment.workflowKey,
      maxAttempts,
    }));
    await rescueIntents(this.#db, { backend: BACKEND, worker: "worker-2", kinds });
  }

  async #passDeadlines(lives: readonly RowLife[]): Promise<void> {
    await this.#db.query({
      text: `update countersign.execution_intents set expires_at = countersign.clock() - interval '1 second'
             where id = any($1::uuid[]) and status in ('awaiting_decision', 'awaiting_external')`,
      values: [lives.map(({ id }) => id)],
    });
  }

  async #cancel(lives: readonly RowLife[]): Promise<void> {
    const ids = lives.map(({ id }) => id).sort();
    await cancelIntents(this.#db, { ids, by: "mia", byType: "human", reasonCode: "cancelled" });
  }

  /** What people, webhooks and operators do comes one by one. */
  async #alone({ life, command }: Order): Promise<void> {
    switch (command.do) {
      case "approve":
      case "edit":
      case "reject":
        return this.#decide(life, command);
      case "outside":
        await endFromOutside(this.#db, {
          intentId: life.id,
          backend: BACKEND,
          by: { type: "automated_workflow", id: "webhook" },
          reasonCode: "completed",
          result:
            command.says === "failed"
              ? { status: "failed", error: { code: "PROVIDER_FAILED", message: "no" } }
              : { status: "succeeded", output: { ref: "r-1" }, receipt: command.receipt ? { proof: 1 } : null },
        });
        return;
      case "replay":
        await replayIntent(this.#db, {
          intentId: life.id,
          by: { type: "human", id: "mia" },
          decisionTimeoutMs: 3_600_000,
        });
        return;
      case "undo":
        return this.#undo(life, command.to);
      default:
        return;
    }
  }

  async #decide(life: RowLife, command: Extract<Command, { do: "approve" | "edit" | "reject" }>): Promise<void> {
    const { commitment, id: intentId } = life;
    const commitments = new Map([[commitment.workflowKey, commitment]]);
    const options = {
      by: { id: command.by, roles: PEOPLE[command.by] },
      ...(command.sees === undefined ? {} : { digest: digestOfPayload(commitment, command.sees) }),
    };
    const amendment = command.do === "edit" ? { amendment: { n: command.to } } : {};
    try {
      await recordDecision(
        { database: this.#db, commitments, maxPayloadBytes: 1_000 },
        { intentId, verdict: command.do, options, ...amendment },
      );
    } catch (error) {
      if (!isCountersignError(error)) throw error;
    }
  }

  async #undo({ id }: RowLife, status: "compensating" | "compensated" | "compensation_failed"): Promise<void> {
    const effect = (await loadIntent(this.#db, id)) as ExecutionIntent;
    if (effect.status === status) return;
    try {
      await this.#db.transaction((tx) => moveEffect(tx, { effect, status, action: `compensation.${status}` }));
    } catch (error) {
      if ((error as { code?: string }).code !== "CS001") throw error;
    }
  }
}

function rowOf({ id, threadId, birth, commitment }: RowLife): Record<string, unknown> {
  const requirement = requirementOf(commitment.classes, commitment.approvers({}));
  return {
    id,
    thread_id: threadId,
    commitment: commitment.name,
    workflow_key: commitment.workflowKey,
    side_effect_class: commitment.classes.sideEffectClass,
    approval_class: commitment.classes.approvalClass,
    reversibility_class: commitment.classes.reversibilityClass,
    action_class: commitment.classes.actionClass,
    digest: digestOfPayload(commitment, 0),
    min_approvers: requirement.minApprovers,
    required_roles: requirement.roles,
    status: birth.needs === "A0" ? "runnable" : "awaiting_decision",
    semantics: birth.semantics,
  };
}

const INSERT_THREADS = `
  insert into countersign.threads (thread_id, graph, graph_version, durability, status, correlation_id, proposed_by,
    input_type, input, ready_at, created_at, updated_at)
  select id, 'lives', 1, 'durable', 'waiting', id, '${PROPOSER}', 'json', 'null', now(), now(), now()
  from unnest($1::text[]) id`;

const INSERT_INTENTS = `
  insert into countersign.execution_intents (id, tenant, thread_id, kind, commitment, version, workflow_key,
    idempotency_key, correlation_id, side_effect_class, approval_class, reversibility_class, sensitivity_class,
    action_class, proposed_by, actor_type, payload, payload_summary, digest, proposed_digest, min_approvers,
    required_roles, status, semantics, backend, waits, compensable, not_before, expires_at, checkpoint_ns,
    checkpoint_id, task_id, action, changed_by_type, changed_by, created_at, updated_at)
  select i.id, 'default', i.thread_id, 'effect', i.commitment, 1, i.workflow_key, i.id::text, i.thread_id,
    i.side_effect_class, i.approval_class, i.reversibility_class, 'S1', i.action_class, '${PROPOSER}',
    'automated_workflow', '{"n": 0}', i.commitment, i.digest, i.digest, i.min_approvers, i.required_roles, i.status,
    i.semantics, '${BACKEND}', true, true, now(),
    case when i.status = 'awaiting_decision' then now() + interval '1 hour' end, '', 'cp', 'task',
    'intent.recorded', 'automated_workflow', '${PROPOSER}', now(), now()
  from jsonb_to_recordset($1::jsonb) as i(id uuid, thread_id text, commitment text, workflow_key text,
    side_effect_class text, approval_class text, reversibility_class text, action_class text, digest text,
    min_approvers int, required_roles jsonb, status text, semantics text)`;
