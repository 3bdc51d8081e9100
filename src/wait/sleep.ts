import { z } from "zod";
import { checker, durationMs as duration } from "../arguments.ts";
import { internalWait, keyOption, type ProposeOptions, propose, waitingTask } from "./propose.ts";
import { askFor } from "./wait-for.ts";

const check = checker("sleep()", { durationMs: duration, options: z.strictObject(keyOption) });

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
      check({ durationMs, options });
      const at = waitingTask("sleep()");
      const body = internalWait({ kind: "timer", name: "countersign.timer", delayMs: durationMs });
      return { at, ...propose(at, body, options) };
    },
    () => {},
  );
}
