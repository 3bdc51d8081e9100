import { setTimeout as delay } from "node:timers/promises";
import { type AnyGraph, type Countersign, type ExecutionIntent, isCountersignError, type Principal } from "countersign";
import pg from "pg";
import { digestOf } from "../src/digest.ts";
import type { Effects } from "./commitments.ts";
import { isDatabaseAway } from "./database-away.ts";
import { read, write } from "./files.ts";
import type { ThreadInput } from "./graphs.ts";
import { Order, Plan, type ProcessInput, type Role } from "./life.ts";
import type { Random } from "./random.ts";

export interface Part {
  readonly cs: Countersign;
  readonly input: ProcessInput;
  readonly graphs: readonly AnyGraph[];
  readonly effects: Effects;
  readonly random: Random;
  readonly signal: AbortSignal;
}

/** Open threads at most, so that a run's end is never far. */
const MAX_OPEN = 40;

/** Plays a role until the signal aborts. The database may go away under it at any time. */
export async function play(part: Part): Promise<void> {
  if (part.input.role === "work") return part.cs.work({ signal: part.signal });
  const pool = new pg.Pool({ connectionString: part.input.databaseUrl, max: 2 });
  pool.on("error", () => {});
  for (let round = 0; !part.signal.aborted; round++) {
    try {
      await ROUNDS[part.input.role](part, pool, round);
    } catch (error) {
      if (!isDatabaseAway(error) && !isRefusal(error)) throw error;
    }
    await delay(part.random.between(5, 60));
  }
  await pool.end();
}

type Round = (part: Part, pool: pg.Pool, round: number) => Promise<void>;

const ROUNDS: Record<Exclude<Role, "work">, Round> = { start: startOne, drive: driveReady, decide, operate };

/** What a person or a starter is told when another one was faster. */
function isRefusal(error: unknown): boolean {
  return isCountersignError(error) && !["BOUNDARY", "DEFINITION_INVALID", "NON_DETERMINISM"].includes(error.code);
}

async function startOne({ cs, input, graphs, random }: Part, pool: pg.Pool, round: number): Promise<void> {
  const open = await pool.query(`select from ${input.schema}.threads where ended_at is null limit ${MAX_OPEN}`);
  if (open.rows.length >= MAX_OPEN) return;
  const threadId = `t-${input.serial}-${round}`;
  const thread: ThreadInput = { threadId, plan: random.pick(Plan.options) };
  await cs.start(random.pick(graphs), thread, { threadId });
  write(input.dir, "notes", { kind: "started", threadId });
}

async function driveReady({ cs, input }: Part, pool: pg.Pool): Promise<void> {
  const { rows } = await pool.query<{ thread_id: string }>(
    `select thread_id from ${input.schema}.threads where status = 'ready' or lease_expires_at < now() limit 5`,
  );
  for (const row of rows) await cs.drive(row.thread_id);
}

const LENA: Principal = { id: "lena", roles: ["legal", "manager"] };
const HANA: Principal = { id: "hana", roles: ["head", "manager"] };

/** A person looks at the inbox, thinks, and decides on what they saw, however stale that is by then. */
async function decide({ cs, input, random }: Part): Promise<void> {
  const by = random.pick([LENA, HANA]);
  const seen = await cs.pending({ limit: 20 });
  await Promise.all(
    seen.map(async (intent) => {
      await delay(random.between(0, 250));
      await decideOn(cs, input.dir, intent, by).catch((error: unknown) => {
        if (!isDatabaseAway(error) && !isRefusal(error)) throw error;
      });
    }),
  );
}

async function decideOn(cs: Countersign, dir: string, intent: ExecutionIntent, by: Principal): Promise<void> {
  const { id, digest, commitment, version, payload } = intent;
  const { plan, amount } = Order.parse(payload);
  const edits = plan === "edit" && digest === intent.proposedDigest;
  const verdict = plan === "edit" && !edits ? "approve" : plan;
  const edited = { ...Order.parse(payload), amount: amount + 100 };
  const meant = edits ? digestOf({ commitment, version, payload: edited }) : digest;
  const note = { intentId: id, principal: by.id, verdict, digest: meant } as const;
  write(dir, "notes", { kind: "deciding", ...note });
  if (edits) await cs.edit(id, { amount: edited.amount }, { by, digest });
  else if (verdict === "approve") await cs.approve(id, { by, digest });
  else await cs.reject(id, { by, digest, reasonCode: "planned" });
  write(dir, "notes", { kind: "decided", ...note });
}

/** Webhooks arrive, events are sent, and somebody looks up what is unknown. */
async function operate({ cs, input, effects }: Part, pool: pg.Pool): Promise<void> {
  const { rows } = await pool.query<{ id: string; kind: string; status: string; thread_id: string; key: string }>(
    `select id, kind, status, thread_id, idempotency_key as key from ${input.schema}.execution_intents
     where status = 'awaiting_external' and (kind = 'event' or commitment = 'keyed.outside')
        or status = 'unknown' and commitment = 'once.blind' limit 20`,
  );
  const by = { id: "otto", roles: ["operator"] };
  const done = new Set(read(input.dir, "ledger").map((line) => line.key));
  for (const { id, kind, status, thread_id, key } of rows) {
    if (kind === "event") {
      await cs.sendEvent(thread_id, { name: "go", eventId: `go-${thread_id}`, payload: { go: true } });
    } else if (status === "unknown" && !done.has(key)) {
      await cs.fail({ intentId: id }, { by, reason: "not in the provider's ledger" });
    } else {
      const receipt = { seenBy: "otto" };
      const ref = status === "unknown" ? { intentId: id } : { commitment: effects.outside, externalRef: `ref-${key}` };
      await cs.complete(ref, { by, output: { ref: `ref-${key}` }, receipt });
    }
  }
}
