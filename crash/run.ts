import { setTimeout as delay } from "node:timers/promises";
import { countersign } from "countersign";
import { postgres } from "countersign/postgres";
import pg from "pg";
import { Cast } from "./cast.ts";
import { effectsAt } from "./commitments.ts";
import { graphsOf } from "./graphs.ts";
import type { Role, Surroundings } from "./life.ts";
import { randomOf } from "./random.ts";
import { type Stage, type StageOptions, setStage } from "./stage.ts";
import { type Verdict, verify } from "./verify.ts";

export interface CrashOptions extends StageOptions {
  readonly kills: number;
  /** Also stop Postgres with `immediate` every few seconds. */
  readonly killDatabase: boolean;
  /** How long threads may take to end in peace, before they count as stuck. Milliseconds, defaults to 45 000. */
  readonly restMs?: number;
  /** Told of each kill. */
  readonly onKill?: (what: string) => void;
}

export interface CrashReport extends Verdict {
  readonly kills: number;
  readonly databaseKills: number;
  /** Where processes were killed, and how often: `at random`, or at which failpoint. */
  readonly places: ReadonlyMap<string, number>;
  /** Where ledger, notes and complaints are kept. */
  readonly dir: string;
}

/**
 * Runs many threads of several graphs in processes that are killed, over and over, at failpoints and
 * at random; then lets what is left end in peace, and compares everything with everything.
 */
export async function crash(options: CrashOptions): Promise<CrashReport> {
  const { seed, kills, sabotage, onKill = () => {}, restMs = 45_000 } = options;
  await using stage = await setStage(options);
  const { surroundings, bundle } = stage;
  const cast = new Cast({
    surroundings,
    bundle,
    random: randomOf(seed),
    seed,
    focus: sabotage?.focus ?? {},
    lifeMs: [100, 2_500],
    onKill,
  });
  const disturbed = cast.disturb(() => cast.kills >= kills);
  const databaseKills = options.killDatabase ? await killDatabase(stage, seed, disturbed, onKill) : 0;
  await disturbed;
  const verdict = await rest(cast, surroundings, restMs);
  return { ...verdict, kills: cast.kills, places: cast.places, databaseKills, dir: surroundings.dir };
}

/** Stops the database like a power cut, every few seconds until the run is over; returns how often. */
async function killDatabase(
  { server }: Stage,
  seed: number,
  until: Promise<void>,
  onKill: (what: string) => void,
): Promise<number> {
  const random = randomOf(-seed - 1);
  const over = until.then(
    () => true,
    () => true,
  );
  for (let kills = 0; ; ) {
    const isOver = await Promise.race([over, delay(random.between(3_000, 7_000)).then(() => false)]);
    if (isOver || server === undefined) return kills;
    await server.kill();
    kills++;
    onKill(`the database, ${kills}`);
  }
}

/** Lets what is left come to its end without any more kills, and looks at it. */
async function rest(cast: Cast, surroundings: Surroundings, restMs: number): Promise<Verdict> {
  const peaceful: Role[] = ["work", "decide", "operate"];
  const children = peaceful.map((role) => cast.start(role));
  const { databaseUrl: database, schema, providerUrl } = surroundings;
  const pool = new pg.Pool({ connectionString: database, max: 4 });
  pool.on("error", () => {});
  const cs = await countersign({ database, schema, graphs: graphsOf(effectsAt(providerUrl)), backend: postgres() });
  try {
    const until = Date.now() + restMs;
    while ((await isBusy(pool, schema)) && Date.now() < until) await delay(200);
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
