import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import pg from "pg";
import { startTemporal } from "../../dev/temporal-server/start.ts";
import type { OfficeOptions } from "./office.ts";
import type { Life } from "./people.ts";
import { type PlayedLife, playLife } from "./play-life.ts";
import { readLedgers } from "./world/read-ledgers.ts";
import { spawnWorld } from "./world/spawn-world.ts";

/*
 * Partner approval, from the fit score to the activation, and a second life that is rejected late and
 * undone; with the process killed in between. `npm run demo`, on PGlite, or on the Postgres that
 * DATABASE_URL names. With --backend temporal a real Temporal server carries out. With --json the last
 * line is a summary for machines, the same for both backends but for the backend's name.
 */
/** Effects by provider and kind. */
type Counts = Record<string, Record<string, number>>;

/** Two lives: two envelopes signed, one of them voided; one activation; a mail to each partner. */
const EXPECTED: Counts = {
  crm: { "partner.activate": 1 },
  esign: { "envelope.create": 2, "envelope.sign": 2, "envelope.void": 1, "webhook.deliver": 2 },
  mail: { "mail.accept": 2 },
};

const {
  values: { json, backend },
} = parseArgs({
  options: { json: { type: "boolean", default: false }, backend: { type: "string", default: "postgres" } },
});
if (backend !== "postgres" && backend !== "temporal") throw new Error(`There is no backend '${backend}'.`);
const url = process.env.DATABASE_URL;
const folder = mkdtempSync(join(tmpdir(), "countersign-demo-"));
const schema = `demo_${randomUUID().slice(0, 8)}`;
const world = await spawnWorld({ dir: join(folder, "world") });
const database = url || join(folder, "database");
const temporal = backend === "temporal" ? await startTemporal() : undefined;

try {
  const accepted = await play("accepted", new Set([4, 17]));
  const rejected = await play("rejected", new Set([13, 30]));
  const ledgers = readLedgers(join(folder, "world"));
  console.log("\nWhat the outside world has in its books:");
  for (const [provider, entries] of Object.entries(ledgers)) {
    for (const { kind, ref, key } of entries)
      console.log(`  ${provider.padEnd(6)} ${kind.padEnd(18)} ${ref}  key ${key ?? "-"}`);
  }
  const ok =
    accepted.ended.status === "completed" &&
    rejected.ended.status === "compensated" &&
    accepted.ended.auditHolds &&
    rejected.ended.auditHolds &&
    JSON.stringify(counts(ledgers)) === JSON.stringify(EXPECTED);
  console.log(
    ok ? "\nEach effect happened once, and the audit chain holds." : "\nThis is not what should have happened.",
  );
  if (json) {
    const kills = accepted.kills + rejected.kills;
    const intents = accepted.ended.intents + rejected.ended.intents;
    const summary = {
      ok,
      database: url ? "postgres" : "pglite",
      backend,
      kills,
      intents,
      outcomes: { accepted: intentsOf(accepted), rejected: intentsOf(rejected) },
      ledgers: counts(ledgers),
    };
    console.log(JSON.stringify(summary));
  }
  process.exitCode = ok ? 0 : 1;
} finally {
  world.child.kill();
  await temporal?.stop();
  if (url) await dropSchema(url);
  rmSync(folder, { recursive: true, force: true });
}

async function play(life: Life, killAt: ReadonlySet<number>): Promise<PlayedLife> {
  const threadId = `northwind-${life}`;
  console.log(`\n${life === "accepted" ? "First" : "Second"} life: ${threadId}`);
  const options: OfficeOptions = {
    ...{ world, database, schema, threadId, life },
    ...(temporal === undefined ? {} : { temporalAddress: temporal.address }),
  };
  const played = await playLife(options, killAt, (_point, killed) => {
    if (killed) console.log("  ── SIGKILL, and the process is started again ──");
  });
  const start = played.ended.timeline[0]?.at ?? "";
  for (const row of played.ended.timeline) {
    const atMs = new Date(row.at).getTime() - new Date(start).getTime();
    const who = row.actorType === "human" ? `by ${row.actorId}` : "";
    console.log(
      `  +${(atMs / 1000).toFixed(2).padStart(5)} s  ${row.action.padEnd(24)} ${(row.commitment ?? "").padEnd(20)} ${who}`,
    );
  }
  console.log(`  ended as ${played.ended.status}, the partner is ${played.ended.stage}`);
  return played;
}

/** How each intent went, without what killed processes had to try again: the part of a timeline that no run may change. */
function intentsOf({ ended }: PlayedLife): string[] {
  const repeated = new Set(["intent.claimed", "intent.attempted"]);
  const lives = new Map<string, string>();
  for (const { action, intentId, commitment, actorType } of ended.timeline) {
    if (intentId === null || repeated.has(action)) continue;
    lives.set(intentId, `${lives.get(intentId) ?? `${commitment}:`} ${action} by ${actorType},`);
  }
  return [...lives.values()].sort();
}

function counts(ledgers: Record<string, readonly { readonly kind: string }[]>): Counts {
  const counted: Counts = {};
  for (const [provider, entries] of Object.entries(ledgers).sort()) {
    const kinds: Record<string, number> = {};
    for (const { kind } of [...entries].sort((a, b) => a.kind.localeCompare(b.kind)))
      kinds[kind] = (kinds[kind] ?? 0) + 1;
    counted[provider] = kinds;
  }
  return counted;
}

async function dropSchema(databaseUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  await client.query(`drop schema if exists ${schema} cascade`);
  await client.end();
}
