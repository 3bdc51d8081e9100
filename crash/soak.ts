import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { countersign } from "countersign";
import { postgres } from "countersign/postgres";
import pg from "pg";
import { median } from "../bench/measure.ts";
import { Cast } from "./cast.ts";
import type { Child } from "./child.ts";
import { effectsAt } from "./commitments.ts";
import { graphsOf } from "./graphs.ts";
import type { Surroundings } from "./life.ts";
import { randomOf } from "./random.ts";
import { setStage } from "./stage.ts";

/*
 * `npm run soak -- --minutes M [--json]`: steady load with kills, ended threads pruned as time goes by.
 * One worker is never killed: it is the one whose memory is watched.
 */
const { values } = parseArgs({
  options: { minutes: { type: "string", default: "10" }, json: { type: "boolean", default: false } },
});
const minutes = Number(values.minutes);
if (!(minutes > 0 && minutes <= 24 * 60)) throw new Error("--minutes takes a number from 0 to 1440.");

const SAMPLE_MS = 5_000;
/** Threads are kept this long after their end. Milliseconds. */
const KEPT_MS = 20_000;
/** What may be left of growth after warm-up, between the second quarter of the run and its last one. */
const FLAT = 1.25;

interface Sample {
  readonly second: number;
  /** Of the worker that lives on, in MiB. */
  readonly memory: number;
  readonly connections: number;
  /** Of all tables with their indexes, in MiB; without the audit trail, which is kept. */
  readonly tables: number;
  readonly audit: number;
  readonly threadsEnded: number;
  /** From the start of a thread to its end, of those of the last minute. Milliseconds, the median. */
  readonly lifeMs: number;
}

const seed = Date.now() % 1_000_000;
await using stage = await setStage({ seed, database: "embedded" });
const { surroundings, bundle } = stage;
const random = randomOf(seed);
const cast = new Cast({
  surroundings,
  bundle,
  random,
  seed,
  focus: {},
  pace: { lifeMs: [2_000, 8_000], maxHit: 6 },
  onKill: () => {},
});
const survivor = cast.start("work");
await survivor.firstLine;

const endsAt = Date.now() + minutes * 60_000;
const disturbed = cast.disturb(() => Date.now() >= endsAt);
const samples = await watch(survivor, surroundings);
await disturbed;
survivor.process.kill("SIGTERM");
await survivor.ended;

const growth = Object.fromEntries(
  (["memory", "connections", "tables", "lifeMs"] as const).map((figure) => [figure, growthOf(figure)]),
);
const flat = Object.values(growth).every((factor) => factor <= FLAT);
console.log(JSON.stringify({ minutes, kills: cast.kills, threads: samples.at(-1)?.threadsEnded, growth, flat, seed }));
process.exitCode = flat ? 0 : 1;

/** Takes a sample every few seconds, and prunes what has ended. */
async function watch(worker: Child, { databaseUrl, schema, providerUrl }: Surroundings): Promise<Sample[]> {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 2 });
  const graphs = graphsOf(effectsAt(providerUrl));
  await using cs = await countersign({ database: databaseUrl, schema, graphs, backend: postgres() });
  const taken: Sample[] = [];
  const startedAt = Date.now();
  while (Date.now() < endsAt) {
    await delay(SAMPLE_MS);
    const sample = await sampleOf(pool, schema, worker, Math.round((Date.now() - startedAt) / 1_000));
    taken.push(sample);
    if (values.json) console.log(JSON.stringify(sample));
    else
      console.log(
        Object.entries(sample)
          .map(([name, value]) => `${name} ${value}`)
          .join("  "),
      );
    await cs.prune({ endedBefore: new Date(Date.now() - KEPT_MS) });
  }
  await pool.end();
  return taken;
}

async function sampleOf(pool: pg.Pool, schema: string, worker: Child, second: number): Promise<Sample> {
  const status = readFileSync(`/proc/${worker.process.pid}/status`, "utf8");
  const { rows } = await pool.query<Omit<Sample, "second" | "memory">>(
    `select (select count(*)::int from pg_stat_activity where datname = current_database()) as connections,
       (select round(sum(pg_total_relation_size(c.oid)) filter (where relname not like 'audit%') / 1048576.0, 1)::float8
        from pg_class c where relnamespace = $1::regnamespace and relkind = 'r') as tables,
       (select round(sum(pg_total_relation_size(c.oid)) filter (where relname like 'audit%') / 1048576.0, 1)::float8
        from pg_class c where relnamespace = $1::regnamespace and relkind = 'r') as audit,
       (select count(*)::int from ${schema}.audit_log where action in ('thread.completed', 'thread.compensated'))
         as "threadsEnded",
       (select coalesce(round(percentile_cont(0.5) within group (order by extract(epoch from ended_at - created_at) * 1000)), 0)::float8
        from ${schema}.threads where ended_at is not null) as "lifeMs"`,
    [schema],
  );
  const memory = Math.round(Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024);
  return { second, memory, ...(rows[0] as Omit<Sample, "second" | "memory">) };
}

/** The last quarter of the run beside its second one: the first is the warm-up. */
function growthOf(figure: "memory" | "connections" | "tables" | "lifeMs"): number {
  const quarter = (n: number): number =>
    median(samples.slice((samples.length * n) / 4, (samples.length * (n + 1)) / 4).map((sample) => sample[figure]));
  return Number((quarter(3) / quarter(1)).toFixed(2));
}
