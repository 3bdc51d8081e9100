import { createHash } from "node:crypto";
import canonicalize from "canonicalize";
import type { Json } from "./json.ts";

/** What a decision binds to (G3): which commitment, in which version, with which payload. */
export interface DigestInput {
  readonly commitment: string;
  readonly version: number;
  readonly payload: Json;
}

/** SHA-256, in hex, of the canonical JSON (RFC 8785) of commitment name, version and payload. */
export function digestOf({ commitment, version, payload }: DigestInput): string {
  const canonical = canonicalize({ commitment, payload, version });
  return createHash("sha256")
    .update(canonical as string)
    .digest("hex");
}
