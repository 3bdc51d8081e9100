import { OptionError } from "../errors.ts";
import { internalWait, type ProposeOptions, propose, waitingTask } from "./propose.ts";
import { askFor } from "./wait-for.ts";

/** Ten years: longer is a mistake in the unit. */
const LONGEST_MS = 10 * 365 * 24 * 3_600_000;

/**
 * Waits for a while, durably: the process may end meanwhile, any process goes on.
 * The time counts from when the wait was recorded, by the database's clock.
 * @param durationMs milliseconds, at most ten years.
 * @throws OptionError for a duration that makes no sense.
 * @throws BoundaryError outside a durable graph.
 */
export function sleep(durationMs: number, options: Pick<ProposeOptions, "key"> = {}): Promise<void> {
  return askFor(
    () => {
      assertDuration(durationMs);
      const at = waitingTask("sleep()");
      const body = internalWait({ kind: "timer", name: "countersign.timer", delayMs: durationMs });
      return { at, ...propose(at, body, options) };
    },
    () => {},
  );
}

function assertDuration(durationMs: number): void {
  if (Number.isFinite(durationMs) && durationMs >= 0 && durationMs <= LONGEST_MS) return;
  throw new OptionError("sleep() got a duration that makes no sense", {
    facts: { durationMs: String(durationMs) },
    remedy: "Give milliseconds between 0 and ten years.",
  });
}
