export type { AuditBreak, AuditRow } from "./audit.ts";
export { verifyAuditChain } from "./audit.ts";
export type { BackendHost, BackendWorker, DurableBackend } from "./backend.ts";
export { type RouteOptions, type Routes, route } from "./backends/route.ts";
export type {
  AnyCommitment,
  Commitment,
  CommitmentDefinition,
} from "./commitment.ts";
export { defineCommitment } from "./commitment.ts";
export type { DatabaseSource } from "./database/client.ts";
export type { ThreadStatus } from "./database/threads.ts";
export type { Principal, Verdict } from "./decision.ts";
export type { ErrorCode, ErrorFacts } from "./errors.ts";
export { CountersignError, isCountersignError, NonRetryableError } from "./errors.ts";
export type { AnyGraph, Durability, Graph, GraphDefinition, GraphDependencies, GraphSource } from "./graph.ts";
export { defineGraph } from "./graph.ts";
export type { HandlerContext, PollResult, Reconciliation } from "./handlers.ts";
export type { ExecutionIntent, IntentFailure, IntentKind, IntentStatus } from "./intent.ts";
export type { Json } from "./json.ts";
export { isWait } from "./langgraph.ts";
export type { CompensationOutcome, DecisionOutcome, EventOutcome, Outcome } from "./outcome.ts";
export { type Pending, pending } from "./pending.ts";
export type {
  ActionClass,
  ActorType,
  ApprovalClass,
  Classes,
  Requirement,
  ReversibilityClass,
  SensitivityClass,
  SideEffectClass,
} from "./policy.ts";
export type { RetryPolicy } from "./retry.ts";
export type { CatalogueEntry } from "./runtime/assemble.ts";
export type { AuditTrail } from "./runtime/audit-trail.ts";
export { type Countersign, countersign } from "./runtime/countersign.ts";
export type { ApproveOptions, RejectOptions } from "./runtime/decide.ts";
export type { ForkOptions, ThreadSnapshot } from "./runtime/history.ts";
export type { PendingFilter } from "./runtime/inbox.ts";
export type { CountersignOptions } from "./runtime/options.ts";
export type { CompleteOptions, EffectRef, EventInput, FailOptions } from "./runtime/outside.ts";
export type { Pruned, PruneOptions } from "./runtime/prune.ts";
export type { Run, StartOptions, StreamOptions } from "./runtime/start.ts";
export type { Result } from "./runtime/timeline.ts";
export { type CommitOptions, type CommitRequest, commit, commitAll, type Recorded } from "./wait/commit.ts";
export { type CompensateOptions, compensate } from "./wait/compensate.ts";
export { type DecisionRequest, requestDecision } from "./wait/request-decision.ts";
export { sleep } from "./wait/sleep.ts";
export { type WaitForEventOptions, waitForEvent } from "./wait/wait-for-event.ts";
