import { z } from "zod";
import { type Check, checker, signal, text } from "../arguments.ts";

/*
 * What the handle's own short calls take. Calls with a file of their own check there.
 */

/** How to stop to follow a thread, or to work. */
export interface FollowOptions {
  readonly signal?: AbortSignal;
}

export const checkThread: Check = checker("A call on a thread", { threadId: text });
export const checkIntent: Check = checker("intent()", { intentId: z.string() });
export const checkFollow: Check = checker("result() or events()", {
  threadId: text,
  options: z.strictObject({ signal: signal.optional() }),
});
export const checkWork: Check = checker("work()", {
  options: z.strictObject({ signal: signal.optional(), until: z.literal("idle").optional() }),
});
export const checkClose: Check = checker("close()", {
  options: z.strictObject({
    timeoutMs: z
      .custom((value) => typeof value === "number" && value >= 0, "Give milliseconds, or Infinity")
      .optional(),
  }),
});
