import type { Parts } from "./assemble.ts";

/** Does what is due now, round by round, until a round finds nothing, or the signal aborts. */
export async function workUntilIdle(
  { driver, worker, sweeper }: Pick<Parts, "driver" | "worker" | "sweeper">,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const done = (await sweeper.tick()) + (await driver.tick()) + (await worker.tick());
    if (done === 0) return;
  }
}
