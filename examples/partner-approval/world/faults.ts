import { Hono } from "hono";
import { z } from "zod";

/**
 * What goes wrong with one request. The work is left undone by all but `drop-after-work`.
 * - `fail`: answers with this status (an SMTP server: with this reply code).
 * - `hang`: never answers; the client has to give up.
 * - `drop-before-work`: destroys the connection.
 * - `drop-after-work`: does the work, writes the ledger, then destroys the connection without an answer.
 */
export type Fault =
  | { readonly kind: "fail"; readonly status: number }
  | { readonly kind: "hang" }
  | { readonly kind: "drop-before-work" }
  | { readonly kind: "drop-after-work" };

export interface FaultPlan {
  /** Whether a known idempotency key gets the first answer and no work is done. Defaults to true. */
  readonly honourKeys: boolean;
  /** Consumed in order, one per request. Defaults to none. */
  readonly next: readonly Fault[];
}

/** The plan that a provider follows. It is held in memory: a restarted provider behaves well. */
export interface Faults {
  readonly plan: FaultPlan;
  /** Consumes the fault of the request that just came in. */
  take(): Fault | undefined;
  /** Replaces the whole plan, faults not yet consumed included. */
  replace(plan: FaultPlan): void;
}

const Plan = z.strictObject({
  honourKeys: z.boolean().default(true),
  next: z
    .array(
      z.discriminatedUnion("kind", [
        z.strictObject({ kind: z.literal("fail"), status: z.int().min(400).max(599) }),
        z.strictObject({ kind: z.literal("hang") }),
        z.strictObject({ kind: z.literal("drop-before-work") }),
        z.strictObject({ kind: z.literal("drop-after-work") }),
      ]),
    )
    .default([]),
});

export function createFaults(): Faults {
  let plan: FaultPlan = { honourKeys: true, next: [] };
  return {
    get plan() {
      return plan;
    },
    take() {
      const [fault, ...next] = plan.next;
      plan = { ...plan, next };
      return fault;
    },
    replace(other) {
      plan = other;
    },
  };
}

/** `POST /` replaces the plan, `GET /` tells what is left of it. Mount it at `/control/faults`. */
export function faultControl(faults: Faults): Hono {
  return new Hono()
    .get("/", (c) => c.json(faults.plan))
    .post("/", async (c) => {
      faults.replace(Plan.parse(await c.req.json()));
      return c.json(faults.plan);
    });
}
