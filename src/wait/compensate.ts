import { z } from "zod";
import { checker } from "../arguments.ts";
import { toJson } from "../json.ts";
import type { CompensationOutcome } from "../outcome.ts";
import { internalWait, keyOption, type ProposeOptions, propose, waitingTask } from "./propose.ts";
import { askFor } from "./wait-for.ts";

export interface CompensateOptions extends Pick<ProposeOptions, "key"> {
  /** Why; each `compensate` handler gets it. Without S2 or S3 data. */
  readonly reason: string;
}

const check = checker("compensate()", { options: z.strictObject({ ...keyOption, reason: z.string() }) });

/**
 * Undoes what this thread did so far: every effect that succeeded and can be compensated, in
 * reverse order of completion, one after the other; what has not started is cancelled. Waits until
 * all are done. An effect is undone once, also if a rejection started to undo it already (design §7).
 * @throws BoundaryError outside a durable graph.
 */
export function compensate(options: CompensateOptions): Promise<CompensationOutcome> {
  return askFor<CompensationOutcome>(
    () => {
      check({ options });
      const at = waitingTask("compensate()");
      const body = {
        ...internalWait({ kind: "compensation", name: "countersign.compensation" }),
        payload: toJson({ reason: options.reason }, "The reason of compensate()"),
      };
      return { at, ...propose(at, body, options) };
    },
    ({ id: intentId, status }) => ({
      status: status === "succeeded" ? "compensated" : "compensation_failed",
      intentId,
    }),
  );
}
