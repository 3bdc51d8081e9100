import { OptionError } from "../errors.ts";
import { internalWait, type ProposeOptions, propose, waitingTask } from "./propose.ts";
import { waitFor } from "./wait-for.ts";

/** Ten years: longer is a mistake in the unit. */
const LONGEST_MS = 10 * 365 * 24 * 3_600_000;

/**
 * Waits for a while, durably: the process may end meanwhile, any process goes on.
 * The time counts from when the wait was recorded, by the database's clock.
 * @param durationMs milliseconds, at most ten years.
 * @throws OptionError for a duration that makes no sense.
 * @throws BoundaryError outside a durable graph.
 */
export async function sleep(durationMs: number, options: Pick<ProposeOptions, "key"> = {}): Promise<void> {
  if (!Number.isFinite(durationMs) || durationMs < 0 || durationMs > LONGEST_MS) {
    throw new OptionError("sleep() got a duration that makes no sense", {
      facts: { durationMs: String(durationMs) },
      remedy: "Give milliseconds between 0 and ten years.",
    });
  }
  const at = waitingTask("sleep()");
  const body = internalWait({ kind: "timer", name: "countersign.timer", delayMs: durationMs });
  const { proposal, recorded } = propose(at, body, options);
  await waitFor(at, proposal, recorded);
}
