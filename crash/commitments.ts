import { type Commitment, type CommitmentDefinition, defineCommitment, NonRetryableError, pending } from "countersign";
import { z } from "zod";
import { type LedgerLine, Order } from "./life.ts";

const Done = z.object({ ref: z.string() });
type Effect = Commitment<Order, { ref: string }>;
type Definition = CommitmentDefinition<Order, { ref: string }>;

/** What the graphs of a run may propose: each way in which an effect can be carried out and approved. */
export interface Effects {
  readonly free: Effect;
  readonly gated: Effect;
  readonly twoPeople: Effect;
  readonly undoable: Effect;
  readonly once: Effect;
  readonly blind: Effect;
  readonly outside: Effect;
}

/** @param providerUrl where the handlers find the provider. */
export function effectsAt(providerUrl: string): Effects {
  const provider = connect(providerUrl);
  const define = (name: string, more: Partial<Definition> = {}): Effect =>
    defineCommitment<Order, { ref: string }>({
      name,
      version: 1,
      sideEffectClass: "internal_write",
      approvalClass: "A0",
      reversibilityClass: "R1",
      sensitivityClass: "S2",
      input: Order,
      output: Done,
      timeoutMs: 3_000,
      retry: { maxAttempts: 50, initialIntervalMs: 20, maxIntervalMs: 200 },
      execute: (order, { idempotencyKey, intentId, signal }) =>
        provider.request({ kind: name, verb: "do", key: idempotencyKey, intentId, order }, signal),
      ...more,
    });
  const gate = { sideEffectClass: "external_message", approvalClass: "A1", reversibilityClass: "R2" } as const;
  const undo =
    (kind: string): NonNullable<Definition["compensate"]> =>
    async ({ input }, { idempotencyKey, intentId, signal }) => {
      await provider.request({ kind, verb: "undo", key: idempotencyKey, intentId, order: input }, signal);
    };
  return {
    free: define("keyed.free"),
    gated: define("keyed.gated", { ...gate, compensate: undo("keyed.gated") }),
    twoPeople: define("keyed.two-people", {
      ...gate,
      approvalClass: "A2",
    }),
    undoable: define("keyed.undoable", { compensate: undo("keyed.undoable") }),
    once: define("once.reconciled", {
      semantics: "at-most-once",
      reconcile: async ({ idempotencyKey }, { signal }) => {
        if (!(await provider.wasDone(idempotencyKey, signal))) return { status: "not-done" };
        return { status: "succeeded", output: { ref: `ref-${idempotencyKey}` }, receipt: { found: idempotencyKey } };
      },
    }),
    blind: define("once.blind", { semantics: "at-most-once" }),
    outside: define("keyed.outside", {
      execute: async (order, { idempotencyKey, intentId, signal }) => {
        const line = { kind: "keyed.outside", verb: "do", key: idempotencyKey, intentId, order } as const;
        const { ref } = await provider.request(line, signal);
        return pending({ externalRef: ref });
      },
    }),
  };
}

function connect(url: string) {
  return {
    async request(line: LedgerLine, signal: AbortSignal): Promise<{ ref: string }> {
      const response = await fetch(`${url}/effects`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(line),
        signal,
      });
      if (response.status === 400) throw new NonRetryableError("The provider does not understand the order");
      if (!response.ok) throw new Error(`the provider answered ${response.status}`);
      return Done.parse(await response.json());
    },
    async wasDone(key: string, signal: AbortSignal): Promise<boolean> {
      const response = await fetch(`${url}/effects/${encodeURIComponent(key)}`, { signal });
      return z.object({ found: z.boolean() }).parse(await response.json()).found;
    },
  };
}
