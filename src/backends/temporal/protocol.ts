import type { IntentStatus } from "../../intent.ts";

/*
 * What travels between the relay, a workflow and its activities, and so what Temporal's history
 * holds: ids, digests, states and times. Payloads, outputs and what a handler says stay in Postgres.
 */

/** What a workflow is started with. */
export interface IntentRun {
  readonly intentId: string;
  /** What was approved (G3). For the history's reader: whoever executes takes it from the row. */
  readonly digest: string;
  /** `name@version` of the commitment: its activities are registered under it. */
  readonly workflowKey: string;
  readonly kind: "effect" | "compensation";
  /** Temporal gives up an attempt after this long; a handler's own time-out is shorter. Milliseconds. */
  readonly startToCloseMs: number;
  /** A worker that says nothing for this long is lost. Milliseconds. */
  readonly heartbeatMs: number;
  readonly retry: { readonly initialIntervalMs: number; readonly backoff: number; readonly maxIntervalMs: number };
}

/** What an activity is told. */
export type IntentRef = Pick<IntentRun, "intentId">;

/** How the row stands, as an activity saw it. */
export interface Progress {
  readonly status: IntentStatus;
  /** When the row expires by itself. Milliseconds from now. */
  readonly expiresInMs: number | null;
}

/** How a workflow ends, where it does not fail. */
export interface IntentEnd {
  readonly intentId: string;
  readonly status: IntentStatus;
}

/**
 * The stages of an intent, each an activity that is registered as `name@version:stage`.
 * - `execute` claims the row, calls the handler and records the outcome; tried until that is done.
 * - `follow` asks the provider what became of it, at the commitment's interval; tried until it has ended.
 * - `look` does what is due now, whatever that is, and says how the row stands.
 * - `cancel` gives the intent up, if its state allows that.
 */
export const STAGES = ["execute", "follow", "look", "cancel"] as const;
export type Stage = (typeof STAGES)[number];

/** The activity's registered name. */
export function activityType(workflowKey: string, stage: Stage): string {
  return `${workflowKey}:${stage}`;
}

/** The workflow's registered name: one pinned type per commitment, another for undoing it. */
export function workflowType(workflowKey: string, kind: IntentRun["kind"]): string {
  return kind === "compensation" ? `${workflowKey}/compensate` : workflowKey;
}

/** The signal that says: look at your row, it may have changed. It carries nothing. */
export const LOOK_SIGNAL = "countersign.look";
