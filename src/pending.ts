import { InputError } from "./errors.ts";

const PENDING: unique symbol = Symbol.for("countersign.pending");

/** A handler's answer that the effect is under way and something outside will end it. */
export interface Pending {
  readonly [PENDING]: true;
  readonly externalRef: string;
  readonly expiresAt: Date | undefined;
}

/**
 * Returned by a handler whose effect ends later: by `complete()` or `fail()` (a webhook), by the
 * commitment's `poll`, or as `expired` at `expiresAt`.
 * @throws InputError for a reference or a date that the database could not keep.
 * @param externalRef the provider's own reference, by which the webhook will name it.
 */
export function pending(input: { readonly externalRef: string; readonly expiresAt?: Date }): Pending {
  const { externalRef, expiresAt } = input;
  const isText = typeof externalRef === "string" && externalRef !== "" && externalRef.isWellFormed();
  if (!isText || externalRef.includes("\u0000") || Number.isNaN(expiresAt?.getTime())) {
    throw new InputError("pending() got an externalRef or an expiresAt that cannot be kept", {
      remedy: "Pass the provider's reference as a text without NUL, and a valid Date or none.",
    });
  }
  return { [PENDING]: true, externalRef: input.externalRef, expiresAt: input.expiresAt };
}

/** @internal */
export function isPending(value: unknown): value is Pending {
  return typeof value === "object" && value !== null && PENDING in value;
}
