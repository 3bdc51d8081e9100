import { setTimeout as delay } from "node:timers/promises";
import type { Bundle } from "./bundle.ts";
import { type Child, startChild } from "./child.ts";
import type { Focus, ProcessInput, Role, Surroundings } from "./life.ts";
import type { Random } from "./random.ts";

/** Every failpoint belongs to the role that comes there. */
const ROLE_OF: Readonly<Record<string, readonly Role[]>> = {
  checkpoint: ["start", "drive", "work"],
  delivery: ["start", "drive", "work"],
  decision: ["decide"],
  signal: ["operate"],
};
/** Which roles are played at a time; whoever works is killed most. */
const CAST: readonly Role[] = ["start", "work", "work", "decide", "drive", "operate"];

/** How fast processes come and go. */
export interface Pace {
  /** How long a process may live, from when it is ready. Milliseconds, at least and at most. */
  readonly lifeMs: readonly [number, number];
  /** The how manieth time at most that one comes to its failpoint. */
  readonly maxHit: number;
  /** How long it may take to come there, where that is not its life. Milliseconds. */
  readonly patienceMs?: number;
}

export interface CastInput {
  readonly surroundings: Surroundings;
  readonly bundle: Bundle;
  readonly random: Random;
  readonly seed: number;
  readonly focus: Focus;
  readonly pace: Pace;
  /** Told of each kill. */
  readonly onKill: (what: string) => void;
}

/** The processes of a run: started, killed at failpoints and at random, and started again. */
export class Cast {
  kills = 0;
  /** Where processes were killed, and how often. */
  readonly places = new Map<string, number>();
  #serial = 0;
  /** How many processes have played a role. */
  readonly #played = new Map<Role, number>();
  readonly #input: CastInput;

  constructor(input: CastInput) {
    this.#input = input;
  }

  /** Plays every role and kills its processes, over and over, until `isEnough()`. */
  async disturb(isEnough: () => boolean): Promise<void> {
    await Promise.all(CAST.map((role) => this.#playAndKill(role, isEnough)));
  }

  async #playAndKill(role: Role, isEnough: () => boolean): Promise<void> {
    while (!isEnough()) {
      const failpoint = this.#failpointFor(role);
      const child = this.start(role, failpoint);
      const where =
        (await this.#strike(child, failpoint !== undefined)) && failpoint !== undefined
          ? `at ${failpoint.name}`
          : "at random";
      const { code, signal } = await child.ended;
      if (signal !== "SIGKILL")
        throw new Error(`A process that played '${role}' ended by itself with ${code ?? signal}.`);
      this.kills++;
      this.places.set(where, (this.places.get(where) ?? 0) + 1);
      this.#input.onKill(`${role} ${where}, ${this.kills}`);
    }
  }

  /** Sees to it that a process ends: by itself at its failpoint (true), or from outside after a while. */
  async #strike(child: Child, isArmed: boolean): Promise<boolean> {
    const atFailpoint = Promise.race([child.ended, child.frozen]).then(() => true);
    const ready = (await child.firstLine) === "ready";
    const { focus, random, pace } = this.#input;
    const lifeMs = focus.failpoints === undefined ? random.between(...pace.lifeMs) : 6_000;
    const patienceMs = isArmed ? (pace.patienceMs ?? lifeMs) : lifeMs;
    const late = delay(patienceMs).then(() => false);
    const fell = !ready || (await Promise.race([atFailpoint, late]));
    const frozen = !fell && random.percent(20) && child.process.kill("SIGSTOP");
    if (frozen || (fell && (await Promise.race([child.frozen.then(() => true), child.ended.then(() => false)])))) {
      // Longer than its leases last: it goes on as a zombie, for a while.
      await delay(random.between(1_500, 2_500));
      child.process.kill("SIGCONT");
      await delay(random.between(200, 800));
    }
    child.process.kill("SIGKILL");
    return fell;
  }

  #failpointFor(role: Role): ProcessInput["failpoint"] {
    const { focus, random, bundle, pace } = this.#input;
    const played = (this.#played.get(role) ?? 0) + 1;
    this.#played.set(role, played);
    // Every second one lives longer, to take over from the others.
    if (focus.failpoints === undefined ? random.percent(35) : played % 2 === 0) return undefined;
    const own = bundle.failpoints.filter(
      (name) =>
        (focus.failpoints?.includes(name) ?? true) && (ROLE_OF[name.split(".")[0] ?? ""] ?? ["work"]).includes(role),
    );
    if (own.length === 0) return undefined;
    return {
      name: random.pick(own),
      hit: focus.hit ?? random.between(1, pace.maxHit),
      signal: (focus.freeze ?? random.percent(20)) ? "SIGSTOP" : "SIGKILL",
    };
  }

  /** Starts a process that plays a role until it is told to end, or comes to its failpoint. */
  start(role: Role, failpoint?: ProcessInput["failpoint"]): Child {
    const serial = ++this.#serial;
    const input: ProcessInput = {
      ...this.#input.surroundings,
      role,
      serial,
      seed: this.#input.seed * 10_000 + serial,
      focus: this.#input.focus,
      ...(failpoint === undefined ? {} : { failpoint }),
    };
    return startChild(this.#input.bundle.process, input);
  }
}
