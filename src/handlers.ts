import { AsyncLocalStorageProviderSingleton } from "@langchain/core/singletons";
import { BoundaryError } from "./errors.ts";
import type { Json } from "./json.ts";

/** What every handler gets beside its input. */
export interface HandlerContext {
  /** Stable over retries, crashes, deploys and backends: hand it to the provider (G4). */
  readonly idempotencyKey: string;
  readonly intentId: string;
  readonly threadId: string;
  readonly correlationId: string;
  /** From 1; counts dispatches, so also those whose worker died. */
  readonly attempt: number;
  /** Aborted on time-out, on cancellation, when the lease is lost, and when the worker closes. */
  readonly signal: AbortSignal;
  /** W3C trace context to pass on, if the thread was started with one. */
  readonly traceparent: string | undefined;
}

/** What `reconcile` found out. `not-done` is a confirmed non-delivery; `unknown` asks again later. */
export type Reconciliation<Output> =
  | { readonly status: "succeeded"; readonly output: Output; readonly receipt?: Json }
  | { readonly status: "not-done" }
  | { readonly status: "unknown" };

/** What `poll` saw. */
export type PollResult<Output> =
  | { readonly status: "pending" }
  | { readonly status: "succeeded"; readonly output: Output; readonly receipt?: Json }
  | { readonly status: "failed"; readonly reason: string };

/** The handlers of a commitment, guarded against being called by a graph. */
export interface Handlers {
  execute(input: unknown, context: HandlerContext): Promise<unknown>;
  readonly compensate:
    | ((
        done: {
          idempotencyKey: string;
          input: unknown;
          output: unknown;
          externalRef: string | undefined;
          reason: string;
        },
        context: HandlerContext,
      ) => Promise<unknown>)
    | undefined;
  readonly reconcile:
    | ((asked: { idempotencyKey: string; input: unknown }, context: HandlerContext) => Promise<Reconciliation<unknown>>)
    | undefined;
  readonly poll:
    | ((asked: { externalRef: string; input: unknown }, context: HandlerContext) => Promise<PollResult<unknown>>)
    | undefined;
}

/** What a definition says of its handlers, and whose they are. */
type Declared = Partial<Handlers> & { readonly name: string };

/** The handlers, none of which a graph can call: what a graph wants done, it proposes. */
export function guard(definition: Declared): Handlers {
  const outside = <Args extends unknown[], Result>(
    handler: ((...args: Args) => Promise<Result>) | undefined,
    called: string,
  ): ((...args: Args) => Promise<Result>) | undefined =>
    handler === undefined
      ? undefined
      : async (...args) => {
          assertOutsideGraph(`${definition.name}.${called}`);
          return handler(...args);
        };
  return Object.freeze({
    execute: outside(definition.execute, "execute") as Handlers["execute"],
    compensate: outside(definition.compensate, "compensate") as Handlers["compensate"],
    reconcile: outside(definition.reconcile, "reconcile"),
    poll: outside(definition.poll, "poll"),
  });
}

function assertOutsideGraph(handler: string): void {
  const config = AsyncLocalStorageProviderSingleton.getRunnableConfig();
  if (config?.configurable?.__pregel_task_id === undefined) return;
  throw new BoundaryError("A graph called the handler of a commitment", {
    facts: { handler },
    remedy: "Call commit(commitment, input): the backend carries it out once it is approved.",
  });
}
