/** One comparison: ours beside the peer's, measured in the same run. Only the ratio travels between machines. */
export interface BenchResult {
  readonly name: string;
  readonly ours: number;
  readonly peer: number;
  readonly unit: string;
  /** Ours by the peer's. */
  readonly ratio: number;
  /** What the ratio should be: at most, or at least. */
  readonly goal: string;
  readonly met: boolean;
}

/** The median; of an even number the lower middle one. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? Number.NaN;
}

/**
 * Runs both in turn, round by round and the order changing, so that a drifting machine drifts for
 * both; returns the medians over the rounds.
 */
export async function sideBySide(
  rounds: number,
  ours: () => Promise<number>,
  peer: () => Promise<number>,
): Promise<{ readonly ours: number; readonly peer: number; readonly ratio: number }> {
  const measured: { ours: number; peer: number }[] = [];
  await ours();
  await peer();
  for (let round = 0; round < rounds; round++) {
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

/** A result whose ratio is to stay at or below the goal. */
export function atMost(
  goal: number,
  name: string,
  unit: string,
  measured: { readonly ours: number; readonly peer: number; readonly ratio: number },
): BenchResult {
  const round = (value: number): number => Number(value.toPrecision(4));
  return {
    name,
    ours: round(measured.ours),
    peer: round(measured.peer),
    unit,
    ratio: round(measured.ratio),
    goal: `≤ ${goal}`,
    met: measured.ratio <= goal,
  };
}
