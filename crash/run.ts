import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { countersign } from "countersign";
import { postgres } from "countersign/postgres";
import pg from "pg";
import { type Bundle, bundle } from "./bundle.ts";
import { effectsAt } from "./commitments.ts";
import { type DatabaseServer, startDatabaseServer } from "./database-server.ts";
import { graphsOf } from "./graphs.ts";
import type { ProcessInput, Role, Surroundings } from "./life.ts";
import { type Random, randomOf } from "./random.ts";
import type { Sabotage } from "./sabotages.ts";
import { type Verdict, verify } from "./verify.ts";

export interface CrashOptions {
  readonly kills: number;
  readonly seed: number;
  /** A URL of a database to use, or a server of the run's own. */
  readonly database: string | "embedded";
  /** Also stop Postgres with `immediate` every few seconds. */
  readonly killDatabase: boolean;
  readonly sabotage?: Sabotage;
  /** Told of each kill. */
  readonly onKill?: (what: string) => void;
}

export interface CrashReport extends Verdict {
  readonly kills: number;
  readonly databaseKills: number;
  readonly seed: number;
  /** Where processes were killed, and how often: `at random`, or at which failpoint. */
  readonly places: ReadonlyMap<string, number>;
  /** Where ledger, notes and complaints are kept. */
  readonly dir: string;
}

/** Every failpoint belongs to the role that comes there. */
const ROLE_OF: Readonly<Record<string, readonly Role[]>> = {
  checkpoint: ["start", "drive", "work"],
  delivery: ["start", "drive", "work"],
  decision: ["decide"],
};
/** Which roles are played at a time; whoever works is the first to be killed. */
const CAST: readonly Role[] = ["start", "work", "work", "decide", "drive", "operate"];

/** How long threads may take to end in peace, before they count as stuck. Milliseconds. */
const REST_MS = 45_000;

/**
 * Runs many threads of several graphs in processes that are killed, over and over, at failpoints and
 * at random; then lets what is left end in peace, and compares everything with everything.
 */
export async function crash(options: CrashOptions): Promise<CrashReport> {
  const random = randomOf(options.seed);
  const bundled = await bundle(options.sabotage);
  const server = options.database === "embedded" ? await startDatabaseServer() : undefined;
  const dir = mkdtempSync(join(tmpdir(), "countersign-crash-run-"));
  const provider = startChild(bundled.provider, { dir, seed: options.seed });
  try {
    const { url: providerUrl } = JSON.parse(await provider.firstLine) as { url: string };
    const databaseUrl = server?.url ?? options.database;
    const schema = `crash_${options.seed}_${Date.now().toString(36)}`;
    const run = new Run({ databaseUrl, schema, providerUrl, dir }, bundled, random, options);
    const databaseKills = await run.disturb(server);
    const verdict = await run.rest();
    return { ...verdict, kills: run.kills, places: run.places, databaseKills, seed: options.seed, dir };
  } finally {
    provider.process.kill();
    await server?.stop();
  }
}

interface Child {
  readonly process: ChildProcess;
  readonly firstLine: Promise<string>;
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
}

function startChild(script: string, input: object): Child {
  const process_ = spawn(process.execPath, ["--enable-source-maps", script, JSON.stringify(input)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(process_, "exit").then(([code, signal]) => ({ code, signal }));
  const firstLine = once(createInterface(process_.stdout), "line").then(([line]) => String(line));
  return { process: process_, firstLine: Promise.race([firstLine, ended.then(() => "ended")]), ended };
}

class Run {
  kills = 0;
  /** Where processes were killed, and how often. */
  readonly places = new Map<string, number>();
  #serial = 0;
  readonly #surroundings: Surroundings;
  readonly #bundle: Bundle;
  readonly #random: Random;
  readonly #options: CrashOptions;

  constructor(surroundings: Surroundings, bundled: Bundle, random: Random, options: CrashOptions) {
    this.#surroundings = surroundings;
    this.#bundle = bundled;
    this.#random = random;
    this.#options = options;
  }

  /** Plays every role and kills its processes until there were enough kills. Returns those of the database. */
  async disturb(server: DatabaseServer | undefined): Promise<number> {
    const playing = Promise.all(CAST.map((role) => this.#playAndKill(role)));
    let databaseKills = 0;
    let over = false;
    const ended = playing.finally(() => {
      over = true;
    });
    while (this.#options.killDatabase && server !== undefined && !over) {
      await Promise.race([ended, delay(this.#random.between(3_000, 7_000))]);
      if (over) break;
      await server.kill();
      this.#options.onKill?.(`the database, ${++databaseKills}`);
    }
    await ended;
    return databaseKills;
  }

  /** Lets what is left come to its end without any more kills, and looks at it. */
  async rest(): Promise<Verdict> {
    const peaceful: Role[] = ["work", "decide", "operate"];
    const children = peaceful.map((role) => this.#start(role));
    const pool = new pg.Pool({ connectionString: this.#surroundings.databaseUrl, max: 4 });
    pool.on("error", () => {});
    const { databaseUrl: database, schema, providerUrl } = this.#surroundings;
    const cs = await countersign({ database, schema, graphs: graphsOf(effectsAt(providerUrl)), backend: postgres() });
    try {
      const until = Date.now() + REST_MS;
      while ((await this.#isBusy(pool)) && Date.now() < until) await delay(200);
      for (const child of children) child.process.kill("SIGTERM");
      await Promise.all(children.map((child) => child.ended));
      return await verify(cs, pool, this.#surroundings);
    } finally {
      for (const child of children) child.process.kill("SIGKILL");
      await cs.close();
      await pool.end();
    }
  }

  /** Whether something is still under way: a thread, or an effect that nobody waits for. */
  async #isBusy(pool: pg.Pool): Promise<boolean> {
    const { schema } = this.#surroundings;
    const { rows } = await pool.query<{ busy: boolean }>(
      `select exists (select from ${schema}.threads where ended_at is null and status <> 'failed')
           or exists (select from ${schema}.execution_intents where status in ('runnable', 'dispatched', 'unknown')) as busy`,
    );
    return rows[0]?.busy ?? false;
  }

  async #playAndKill(role: Role): Promise<void> {
    while (this.kills < this.#options.kills) {
      const failpoint = this.#failpointFor(role);
      const child = this.#start(role, failpoint);
      const byItself = child.ended.then(() => true);
      const ready = (await child.firstLine) === "ready";
      const late = delay(this.#random.between(100, 2_500)).then(() => false);
      const fell = !ready || (await Promise.race([byItself, late]));
      if (!fell) await this.#strike(child);
      const { code, signal } = await child.ended;
      if (signal !== "SIGKILL")
        throw new Error(`A process that played '${role}' ended by itself with ${code ?? signal}.`);
      this.kills++;
      const where = fell && failpoint !== undefined ? `at ${failpoint.name}` : "at random";
      this.places.set(where, (this.places.get(where) ?? 0) + 1);
      this.#options.onKill?.(`${role} ${where}, ${this.kills} of ${this.#options.kills}`);
    }
  }

  /** Kills it; at times only after it was held still for longer than its leases last. */
  async #strike(child: Child): Promise<void> {
    if (this.#random.percent(20)) {
      child.process.kill("SIGSTOP");
      await delay(this.#random.between(1_200, 2_500));
      child.process.kill("SIGCONT");
      await delay(this.#random.between(50, 800));
    }
    child.process.kill("SIGKILL");
  }

  #failpointFor(role: Role): ProcessInput["failpoint"] {
    if (this.#random.percent(35)) return undefined;
    const own = this.#bundle.failpoints.filter((name) =>
      (ROLE_OF[name.split(".")[0] ?? ""] ?? ["work"]).includes(role),
    );
    return own.length === 0 ? undefined : { name: this.#random.pick(own), hit: this.#random.between(1, 6) };
  }

  #start(role: Role, failpoint?: ProcessInput["failpoint"]): Child {
    const serial = ++this.#serial;
    const input: ProcessInput = {
      ...this.#surroundings,
      role,
      serial,
      seed: this.#options.seed * 10_000 + serial,
      ...(failpoint === undefined ? {} : { failpoint }),
    };
    return startChild(this.#bundle.process, input);
  }
}
