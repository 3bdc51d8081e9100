import type { z } from "zod";

/** What a schema says of a value: the parsed one, or where it does not fit, and never the value. */
export type Parsed<Value> =
  | { readonly fits: true; readonly value: Value }
  | { readonly fits: false; readonly paths: string };

/**
 * Parses by a schema of the application's. One that throws (an async check, a bug in a refinement)
 * counts as one that does not fit: whoever fails closed asks no more.
 */
export function parseWith<Value>(schema: z.ZodType<Value>, value: unknown): Parsed<Value> {
  try {
    const result = schema.safeParse(value);
    if (result.success) return { fits: true, value: result.data };
    return {
      fits: false,
      paths: result.error.issues.map((issue) => issue.path.map(String).join(".") || "$").join(", "),
    };
  } catch {
    return { fits: false, paths: "$ (the schema itself throws)" };
  }
}
