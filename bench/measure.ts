/** One comparison: ours beside the peer's, measured in the same run. Only the ratio travels between machines. */
export interface BenchResult {
  readonly name: string;
  readonly ours: number;
  readonly peer: number;
  readonly unit: string;
  /** Ours by the peer's. */
  readonly ratio: number;
  /** What the ratio should be: at most for a time, at least for a rate. Of {@link within}: what `ours` should be at most. */
  readonly goal: number;
  readonly met: boolean;
}

/** The median; of an even number the lower middle one. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The smallest value that at least this share of the values does not exceed. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}

/** How much a turn takes, in whatever unit: once ours, once the peer's. */
export interface SideBySideInput {
  readonly rounds: number;
  /** Stops after the round in which this much time has passed, but never before the third. Milliseconds. */
  readonly budgetMs: number;
  /** Turns before the first round, for as long: V8 needs some seconds until it has compiled what is called often. */
  readonly warmUpMs?: number;
  readonly ours: () => Promise<number>;
  readonly peer: () => Promise<number>;
}

export interface Measured {
  readonly ours: number;
  readonly peer: number;
  readonly ratio: number;
}

/** Rounds that are measured however slow the machine is. */
const FEWEST_ROUNDS = 3;

const WARM_UP_MS = 4_000;

/**
 * Runs both in turn, round by round and the order changing, so that a drifting machine drifts for
 * both; returns the medians over the rounds.
 */
export async function sideBySide(input: SideBySideInput): Promise<Measured> {
  const { rounds, budgetMs, warmUpMs = WARM_UP_MS, ours, peer } = input;
  const measured: { ours: number; peer: number }[] = [];
  for (const warm = performance.now() + warmUpMs; performance.now() < warm; ) {
    await ours();
    await peer();
  }
  const until = performance.now() + budgetMs;
  for (let round = 0; round < rounds; round++) {
    if (round >= FEWEST_ROUNDS && performance.now() > until) break;
    const oursFirst = round % 2 === 0;
    const first = await (oursFirst ? ours() : peer());
    const second = await (oursFirst ? peer() : ours());
    measured.push(oursFirst ? { ours: first, peer: second } : { ours: second, peer: first });
  }
  return {
    ours: median(measured.map((round) => round.ours)),
    peer: median(measured.map((round) => round.peer)),
    // Of each round its own ratio: both halves of it met the same machine.
    ratio: median(measured.map((round) => round.ours / round.peer)),
  };
}

/** A result whose ratio is to stay at or below the goal: of times. */
export function atMost(goal: number, name: string, unit: string, measured: Measured): BenchResult {
  return result(goal, name, unit, measured, measured.ratio <= goal);
}

/** A result whose ratio is to reach the goal: of rates. */
export function atLeast(goal: number, name: string, unit: string, measured: Measured): BenchResult {
  return result(goal, name, unit, measured, measured.ratio >= goal);
}

/** A result that has a goal of its own, in its unit, whatever the peer takes. */
export function within(goal: number, name: string, unit: string, measured: Measured): BenchResult {
  return result(goal, name, unit, measured, measured.ours <= goal);
}

function result(goal: number, name: string, unit: string, measured: Measured, met: boolean): BenchResult {
  const round = (value: number): number => Number(value.toPrecision(4));
  const { ours, peer, ratio } = measured;
  return { name, ours: round(ours), peer: round(peer), unit, ratio: round(ratio), goal, met };
}
