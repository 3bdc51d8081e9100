import { z } from "zod";
import { checker, text } from "./arguments.ts";
import { InputError } from "./errors.ts";

const PENDING: unique symbol = Symbol.for("countersign.pending");

/** A handler's answer that the effect is under way and something outside will end it. */
export interface Pending {
  readonly [PENDING]: true;
  readonly externalRef: string;
  readonly expiresAt: Date | undefined;
}

const checkPending = checker(
  "pending()",
  {
    input: z.strictObject({
      externalRef: text,
      // What Postgres, and people, take for a date.
      expiresAt: z.date().min(new Date("1970-01-01")).max(new Date("9999-12-31")).optional(),
    }),
  },
  InputError,
);

/**
 * Returned by a handler whose effect ends later: by `complete()` or `fail()` (a webhook), by the
 * commitment's `poll`, or as `expired` at `expiresAt`.
 * @throws InputError for a reference or a date that the database could not keep.
 * @param externalRef the provider's own reference, by which the webhook will name it.
 */
export function pending(input: { readonly externalRef: string; readonly expiresAt?: Date }): Pending {
  checkPending({ input });
  return { [PENDING]: true, externalRef: input.externalRef, expiresAt: input.expiresAt };
}

/** @internal */
export function isPending(value: unknown): value is Pending {
  return typeof value === "object" && value !== null && PENDING in value;
}
