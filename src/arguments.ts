import { z } from "zod";
import { type ErrorInit, OptionError } from "./errors.ts";

/*
 * What comes in from outside is looked at once, at the border: types are no help to a caller in
 * JavaScript, nor against a value that was parsed from a request. Inside, types are trusted.
 */

/** The longest name, id or key: an index entry of Postgres holds it in any script. */
const MAX_TEXT_LENGTH = 500;

/** Ten years: a longer time is a mistake in the unit. Milliseconds. */
export const LONGEST_MS: number = 10 * 365 * 24 * 3_600_000;

/** Postgres refuses U+0000 in text and jsonb, and a lone surrogate has no UTF-8 form. */
function isStorable(value: string): boolean {
  return value.isWellFormed() && !value.includes("\u0000");
}

/** A line for people, from wherever it came, as Postgres takes it. */
export function toLine(value: string): string {
  return value.toWellFormed().replaceAll("\u0000", "").slice(0, MAX_TEXT_LENGTH);
}

const UNSTORABLE = "Give well-formed text without NUL";

/** What is looked at elsewhere, if it is there. */
export const anything: z.ZodType = z.unknown().optional();
/** A name, an id or a key. */
export const text: z.ZodType<string> = z.string().min(1).max(MAX_TEXT_LENGTH).refine(isStorable, UNSTORABLE);
/** What somebody wrote. */
export const prose: z.ZodType<string> = z.string().max(100_000).refine(isStorable, UNSTORABLE);
/** It goes into the audit trail as it is: a code, never a sentence. */
export const reasonCode: z.ZodType<string> = z
  .string()
  .regex(/^[A-Za-z0-9_.-]{1,64}$/, "Use letters, digits, dots, hyphens and underscores, at most 64");
/** Rule 9: where the principal cannot be established, the answer is no. */
export const principal: z.ZodType = z.object({ id: text, roles: z.array(text) });
export const signal: z.ZodType<AbortSignal> = z.instanceof(AbortSignal);
export const durationMs: z.ZodType<number> = z.number().min(0).max(LONGEST_MS);
/** Who must approve. */
export const approvers: z.ZodType = z.strictObject({
  minApprovers: z.int().min(0).max(100).optional(),
  roles: z.array(z.array(text)).optional(),
});

/** Looks at the arguments of one call, by name. */
export type Check = (args: Readonly<Record<string, unknown>>) => void;

type ErrorClass = new (shortMessage: string, init: ErrorInit) => Error;

/**
 * Makes the check of one public call. It names what is wrong and never says the value.
 * @throws OptionError, or the given class of ours, when called with arguments that make no sense.
 */
export function checker(
  call: string,
  shape: Readonly<Record<string, z.ZodType>>,
  Refusal: ErrorClass = OptionError,
): Check {
  const schema = z.strictObject(shape);
  return (args) => {
    const issue = firstIssue(schema, args);
    if (issue === undefined) return;
    const path = issue.path.map(String);
    if (issue.code === "unrecognized_keys") {
      const asked = at(schema, path);
      const known = asked instanceof z.ZodObject ? Object.keys(asked.shape) : [];
      throw new Refusal(`${call} does not know '${[...path, issue.keys[0]].join(".")}'`, {
        remedy: `It knows ${known.join(", ")}.`,
      });
    }
    const what = path.length === 0 ? "an argument" : `a ${path.join(".")}`;
    throw new Refusal(`${call} got ${what} that makes no sense`, { remedy: `${toLine(issue.message)}.` });
  };
}

/** What cannot even be looked at (a proxy, a getter that throws) makes no sense, either. */
function firstIssue(schema: z.ZodType, args: unknown): z.core.$ZodIssue | undefined {
  try {
    return schema.safeParse(args).error?.issues[0];
  } catch {
    return { code: "custom", path: [], message: "It cannot be read", input: undefined };
  }
}

/** The part of a schema that a path leads to. */
function at(schema: z.ZodType, [first, ...rest]: readonly string[]): z.ZodType | undefined {
  if (first === undefined) return schema;
  const inner = schema instanceof z.ZodObject ? (schema.shape[first] as z.ZodType | undefined) : undefined;
  return inner && at(inner, rest);
}
