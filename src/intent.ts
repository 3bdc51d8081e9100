import { v5 as uuidv5 } from "uuid";
import type { Json } from "./json.ts";
import type { ActorType, Classes, Requirement } from "./policy.ts";

/** What a graph waits for. Only `effect` and `compensation` are carried out by a backend. */
export type IntentKind = "effect" | "decision" | "event" | "timer" | "compensation";

/** Where an intent is in its life (design §4). The database refuses every other move. */
export type IntentStatus =
  | "recorded"
  | "awaiting_decision"
  | "runnable"
  | "dispatched"
  | "awaiting_external"
  | "unknown"
  | "succeeded"
  | "failed"
  | "rejected"
  | "expired"
  | "cancelled"
  | "compensating"
  | "compensated"
  | "compensation_failed";

/**
 * Every legal move. The database holds the same table (migration 0002) and decides;
 * `test/integration/state-machine.test.ts` compares the two, pair by pair.
 */
export const TRANSITIONS: Readonly<Record<IntentStatus, readonly IntentStatus[]>> = {
  recorded: ["awaiting_decision", "runnable", "cancelled"],
  awaiting_decision: ["runnable", "succeeded", "rejected", "expired", "cancelled"],
  runnable: ["dispatched", "cancelled"],
  dispatched: ["succeeded", "awaiting_external", "runnable", "unknown", "failed", "cancelled"],
  awaiting_external: ["succeeded", "failed", "expired", "cancelled"],
  unknown: ["succeeded", "runnable", "failed"],
  succeeded: ["compensating"],
  failed: ["runnable", "awaiting_decision"],
  rejected: [],
  expired: [],
  cancelled: [],
  compensating: ["compensated", "compensation_failed"],
  compensated: [],
  compensation_failed: ["compensating"],
};

const ENDED: ReadonlySet<IntentStatus> = new Set([
  "succeeded",
  "failed",
  "rejected",
  "expired",
  "cancelled",
  "compensating",
  "compensated",
  "compensation_failed",
]);

/** Whether the graph can go on: the intent has its outcome. */
export function hasEnded(status: IntentStatus): boolean {
  return ENDED.has(status);
}

/** What a graph asks to be recorded: the part of an ExecutionIntent that the graph side knows. */
export interface IntentProposal {
  readonly id: string;
  readonly kind: IntentKind;
  readonly commitment: string;
  readonly version: number;
  readonly workflowKey: string;
  readonly idempotencyKey: string;
  readonly classes: Classes;
  readonly payload: Json;
  readonly payloadSummary: string;
  readonly digest: string;
  /** JSON Schema of the payload, for decisions whose payload may be edited; effects use their commitment's schema. */
  readonly editSchema: Json | null;
  readonly evidence: Json | null;
  readonly requirement: Requirement;
  readonly proposedBy: string;
  readonly actorType: ActorType;
  readonly status: IntentStatus;
  readonly semantics: "at-least-once" | "at-most-once";
  readonly backend: string | null;
  /** Wait this long before it may run; a timer ends then. Milliseconds. */
  readonly delayMs: number;
  /** For an open decision or an outside event: it ends as `expired` after this long. Milliseconds. */
  readonly expiresInMs: number | null;
  readonly externalRef: string | null;
  readonly groupId: string | null;
  readonly compensable: boolean;
  /** False where the graph does not wait for the outcome. */
  readonly waits: boolean;
  readonly checkpointNs: string;
  readonly checkpointId: string;
  readonly taskId: string;
  readonly traceId: string | null;
}

/** A recorded intent as the database holds it: the whole ExecutionIntent of `policy.md`. */
export interface ExecutionIntent extends Omit<IntentProposal, "delayMs" | "expiresInMs"> {
  readonly tenant: string;
  /** The digest as first proposed; `digest` is another one after an edit. */
  readonly proposedDigest: string;
  readonly threadId: string;
  readonly correlationId: string;
  readonly causationId: string | null;
  readonly spanId: string | null;
  readonly committedBy: string | null;
  readonly attempt: number;
  readonly leaseOwner: string | null;
  readonly leaseToken: number;
  readonly leaseExpiresAt: Date | null;
  readonly notBefore: Date;
  readonly expiresAt: Date | null;
  readonly output: Json | null;
  readonly error: IntentFailure | null;
  readonly receipt: Json | null;
  readonly compensates: string | null;
  readonly schemaVersion: number;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  readonly endedAt: Date | null;
}

/** Why an intent did not succeed: a stable code and a line for people. */
export interface IntentFailure {
  readonly code: string;
  readonly message: string;
}

/** The namespace of our UUIDv5 intent ids. */
const NAMESPACE = "6d2f3a1e-8c4b-5f0a-9b7d-2e1c0a4f8d63";

/** Where in a thread a wait stands: stable over crash, resume and retry, new on a fork (design §3.1). */
export interface WaitPosition {
  readonly threadId: string;
  readonly checkpointNs: string;
  readonly taskId: string;
  /** The ordinal of the call in its task, or the caller's key in its place. */
  readonly key: string | number;
}

/** The id of the intent that is recorded at this position. A number and a string key never collide. */
export function intentIdOf({ threadId, checkpointNs, taskId, key }: WaitPosition): string {
  return uuidv5(JSON.stringify([threadId, checkpointNs, taskId, key]), NAMESPACE);
}

/** Whether a text could be the id of an intent: anything else would be an error of the database's. */
export function isIntentId(id: unknown): id is string {
  return typeof id === "string" && /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i.test(id);
}

/** The pinned, versioned kind of an intent, as a worker registers it: `name@version`. */
export function workflowKeyOf(name: string, version: number): string {
  return `${name}@${version}`;
}
