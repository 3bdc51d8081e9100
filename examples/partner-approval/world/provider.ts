import { isDeepStrictEqual } from "node:util";
import { createFaults, type Faults } from "./faults.ts";
import { type Ledger, type LedgerEntry, openLedger } from "./ledger.ts";

export type ProviderName = "esign" | "crm" | "mail";

/** Somebody outside whom Countersign asks for effects: what they remember, and how they misbehave. */
export interface Provider {
  readonly ledger: Ledger;
  readonly faults: Faults;
}

export interface ProviderOptions {
  /** Where the ledger is; created when missing. */
  readonly dir: string;
  /** 0 lets the operating system choose. Defaults to 0. */
  readonly port?: number | undefined;
}

export interface Performed {
  readonly entry: LedgerEntry;
  /** The effect was done before under the same key, and nothing happened now. */
  readonly replayed: boolean;
}

/** An idempotency key came back with another request. Real providers refuse that too. */
export class KeyReusedError extends Error {
  constructor(kind: string, earlier: LedgerEntry) {
    super(`This idempotency key was used for another ${earlier.kind}; it cannot be used for ${kind}.`);
    this.name = "KeyReusedError";
  }
}

export function createProvider(name: ProviderName, dir: string): Provider {
  return { ledger: openLedger(dir, name), faults: createFaults() };
}

/**
 * Does the effect, which is to say writes it into the ledger. While the provider honours keys, a known key
 * does nothing and gives the first entry back, also after a restart.
 * @throws KeyReusedError when the known key belongs to another kind or detail.
 */
export function perform({ ledger, faults }: Provider, effect: Omit<LedgerEntry, "at">): Performed {
  const known = effect.key !== null && faults.plan.honourKeys ? ledger.findByKey(effect.key) : undefined;
  if (known === undefined) return { entry: ledger.done(effect), replayed: false };
  if (known.kind !== effect.kind || !isDeepStrictEqual(known.detail, effect.detail)) {
    throw new KeyReusedError(effect.kind, known);
  }
  return { entry: known, replayed: true };
}
