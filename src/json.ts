import { InputError } from "./errors.ts";

/** A value that survives JSON unchanged: what a payload may be. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** Postgres refuses U+0000 in jsonb, and a lone surrogate has no UTF-8 form. */
const NUL = "\u0000";

/** Deeper than people write, and far from where a parser of Postgres' or ours runs out of stack. */
const MAX_DEPTH = 256;

/** The largest payload unless `countersign({ maxPayloadBytes })` says otherwise. */
export const DEFAULT_MAX_PAYLOAD_BYTES: number = 1024 * 1024;

/**
 * Returns `value` as plain JSON, or refuses it at the door.
 * @param maxBytes of its canonical JSON in UTF-8.
 * LangGraph's serializer turns a Date into a string and NaN into null on reload, so what is not
 * plain JSON would change between the approval and the call: it is refused, never coerced.
 * Properties that are `undefined` are dropped, as in JSON.
 * @throws InputError `PAYLOAD_NOT_JSON`, naming the path, never the value, or `PAYLOAD_TOO_LARGE`.
 */
export function toJson(value: unknown, subject: string, maxBytes: number = DEFAULT_MAX_PAYLOAD_BYTES): Json {
  const json = copyOf(value, subject);
  // RFC 8785 orders the keys and writes everything else as this does: the size is the same.
  const sizeBytes = Buffer.byteLength(JSON.stringify(json));
  if (sizeBytes <= maxBytes) return json;
  throw new InputError(`${subject} is too large`, {
    code: "PAYLOAD_TOO_LARGE",
    facts: { sizeBytes, maxPayloadBytes: maxBytes },
    remedy: "Keep the bulk elsewhere and pass a reference with its hash, or raise countersign({ maxPayloadBytes }).",
  });
}

function copyOf(value: unknown, subject: string): Json {
  try {
    return copy(value, "$", [], subject);
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw refuse(subject, "$", "cannot be read: a getter or a proxy of it throws");
  }
}

function copy(value: unknown, path: string, above: readonly object[], subject: string): Json {
  switch (typeof value) {
    case "boolean":
      return value;
    case "number":
      if (Number.isFinite(value)) return value;
      throw refuse(subject, path, "is not a finite number");
    case "string":
      if (!value.isWellFormed()) throw refuse(subject, path, "has a lone surrogate");
      if (value.includes(NUL)) throw refuse(subject, path, "has a NUL character");
      return value;
    case "object":
      if (value === null) return null;
      if (above.includes(value)) throw refuse(subject, path, "refers to itself");
      if (above.length >= MAX_DEPTH) throw refuse(subject, "$", `is nested more than ${MAX_DEPTH} deep`);
      return Array.isArray(value)
        ? Array.from(value, (item, index) => copy(item, `${path}[${index}]`, [...above, value], subject))
        : copyObject(value, path, [...above, value], subject);
    default:
      throw refuse(subject, path, `is a ${typeof value}`);
  }
}

function copyObject(value: object, path: string, above: readonly object[], subject: string): Json {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) {
    throw refuse(subject, path, `is a ${value.constructor?.name ?? "class instance"}`);
  }
  const entries: [string, Json][] = [];
  for (const key of Object.keys(value)) {
    const at = `${path}.${key}`;
    if (key === "__proto__") throw refuse(subject, path, "has a __proto__ key");
    copy(key, at, [], subject);
    const item: unknown = (value as Record<string, unknown>)[key];
    if (item !== undefined) entries.push([key, copy(item, at, above, subject)]);
  }
  return Object.fromEntries(entries);
}

function refuse(subject: string, path: string, problem: string): InputError {
  return new InputError(`${subject} is not plain JSON: ${path} ${problem}`, {
    code: "PAYLOAD_NOT_JSON",
    remedy: "Pass only null, booleans, finite numbers, well-formed strings, arrays and plain objects.",
  });
}
