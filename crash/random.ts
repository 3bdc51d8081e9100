import fc from "fast-check";

/** Random numbers that a seed decides. */
export interface Random {
  /** A whole number from `min` to `max`, both included. */
  between(min: number, max: number): number;
  /** True in so many of a hundred cases. */
  percent(share: number): boolean;
  pick<T>(items: readonly T[]): T;
}

/** @param seed the same seed gives the same numbers. */
export function randomOf(seed: number): Random {
  // fast-check's own generator: an endless, reproducible stream.
  const stream = fc.sample(fc.infiniteStream(fc.nat(0xffff_ffff >>> 1)), { seed, numRuns: 1 })[0] as Iterator<number>;
  const between = (min: number, max: number): number =>
    min + ((stream.next() as { value: number }).value % (max - min + 1));
  return {
    between,
    percent: (share) => between(1, 100) <= share,
    pick: (items) => items[between(0, items.length - 1)] as (typeof items)[number],
  };
}
