import { setTimeout as delay } from "node:timers/promises";
import { countersign } from "countersign";
import pg from "pg";
import { BACKENDS, type BackendName } from "./backends.ts";
import type { Backing } from "./backing.ts";
import { Cast, type Pace } from "./cast.ts";
import { effectsAt } from "./commitments.ts";
import { graphsOf } from "./graphs.ts";
import type { Role, Surroundings } from "./life.ts";
import { type Random, randomOf } from "./random.ts";
import { type StageOptions, setStage } from "./stage.ts";
import { type Verdict, verify } from "./verify.ts";
import { openWorkflows } from "./verify-temporal.ts";

export interface CrashOptions extends StageOptions {
  readonly kills: number;
  /** Also stop Postgres with `immediate` every few seconds. */
  readonly killDatabase: boolean;
  /** Also kill Temporal every few seconds, where it is the backend. Defaults to false. */
  readonly killTemporal?: boolean;
  /** How long threads may take to end in peace, before they count as stuck. Milliseconds, defaults to 45 000, and to 90 000 with Temporal. */
  readonly restMs?: number;
  /** Told of each kill. */
  readonly onKill?: (what: string) => void;
}

export interface CrashReport extends Verdict {
  readonly kills: number;
  readonly databaseKills: number;
  readonly temporalKills: number;
  /** Where processes were killed, and how often: `at random`, or at which failpoint. */
  readonly places: ReadonlyMap<string, number>;
  /** Where ledger, notes and complaints are kept. */
  readonly dir: string;
}

interface BackendPace extends Pace {
  /** How long each server is left alone between two kills, at least and at most. Milliseconds. */
  readonly databasePauseMs: readonly [number, number];
  readonly restMs: number;
}

const TEMPORAL_PAUSE_MS = [8_000, 16_000] as const;

const PACE: Readonly<Record<BackendName, BackendPace>> = {
  postgres: { lifeMs: [100, 2_500], maxHit: 6, databasePauseMs: [3_000, 7_000], restMs: 45_000 },
  // Its workers take a second to get going, its server two, and its own time-outs for a lost one are longer.
  temporal: { lifeMs: [100, 6_000], maxHit: 2, patienceMs: 6_000, databasePauseMs: [8_000, 16_000], restMs: 90_000 },
};

/**
 * Runs many threads of several graphs in processes that are killed, over and over, at failpoints and
 * at random; then lets what is left end in peace, and compares everything with everything.
 */
export async function crash(options: CrashOptions): Promise<CrashReport> {
  const { seed, kills, backend = "postgres", sabotage, onKill = () => {}, restMs = PACE[backend].restMs } = options;
  await using stage = await setStage(options);
  const { surroundings, bundle, server, temporal } = stage;
  const cast = new Cast({
    surroundings,
    bundle,
    random: randomOf(seed),
    seed,
    focus: sabotage?.focus ?? {},
    pace: PACE[backend],
    onKill,
  });
  const disturbed = cast.disturb(() => cast.kills >= kills);
  const killing = { until: disturbed, onKill };
  const { databasePauseMs } = PACE[backend];
  const [databaseKills, temporalKills] = await Promise.all([
    options.killDatabase && server
      ? killServer({ ...killing, server, name: "the database", pauseMs: databasePauseMs, random: randomOf(-seed - 1) })
      : 0,
    options.killTemporal && temporal
      ? killServer({
          ...killing,
          server: temporal,
          name: "Temporal",
          pauseMs: TEMPORAL_PAUSE_MS,
          random: randomOf(-seed - 2),
        })
      : 0,
    disturbed,
  ]);
  const verdict = await rest(cast, BACKENDS[backend], surroundings, restMs);
  return { ...verdict, kills: cast.kills, places: cast.places, databaseKills, temporalKills, dir: surroundings.dir };
}

interface ServerKilling {
  readonly server: { kill(): Promise<void> };
  readonly name: string;
  /** How long it is left alone in between, at least and at most. Milliseconds. */
  readonly pauseMs: readonly [number, number];
  readonly random: Random;
  readonly until: Promise<void>;
  readonly onKill: (what: string) => void;
}

/** Kills a server, which comes back with its data, over and over until the run is over; returns how often. */
async function killServer({ server, name, pauseMs, random, until, onKill }: ServerKilling): Promise<number> {
  const over = until.then(
    () => true,
    () => true,
  );
  for (let kills = 0; ; ) {
    const isOver = await Promise.race([over, delay(random.between(...pauseMs)).then(() => false)]);
    if (isOver) return kills;
    await server.kill();
    kills++;
    onKill(`${name}, ${kills}`);
  }
}

/** Lets what is left come to its end without any more kills, and looks at it. */
async function rest(cast: Cast, backing: Backing, surroundings: Surroundings, restMs: number): Promise<Verdict> {
  const peaceful: Role[] = ["work", "decide", "operate"];
  const children = peaceful.map((role) => cast.start(role));
  const { databaseUrl: database, schema, providerUrl } = surroundings;
  const pool = new pg.Pool({ connectionString: database, max: 4 });
  pool.on("error", () => {});
  const graphs = graphsOf(effectsAt(providerUrl));
  const cs = await countersign({ database, schema, graphs, backend: backing.open(surroundings) });
  try {
    const until = Date.now() + restMs;
    const isOver = async () => !(await isBusy(pool, schema)) && (await openWorkflows(surroundings)).length === 0;
    while (!(await isOver()) && Date.now() < until) await delay(200);
    for (const child of children) child.process.kill("SIGTERM");
    await Promise.all(children.map((child) => child.ended));
    return await verify(cs, pool, surroundings);
  } finally {
    for (const child of children) child.process.kill("SIGKILL");
    await cs.close();
    await pool.end();
  }
}

/** Whether something is still under way: a thread, or an effect that nobody waits for. */
async function isBusy(pool: pg.Pool, schema: string): Promise<boolean> {
  const { rows } = await pool.query<{ busy: boolean }>(
    `select exists (select from ${schema}.threads where ended_at is null and status <> 'failed')
         or exists (select from ${schema}.execution_intents where status in ('runnable', 'dispatched', 'unknown')) as busy`,
  );
  return rows[0]?.busy ?? false;
}
