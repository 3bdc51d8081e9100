import { type LedgerEntry, readDone, readSeen, type SeenRequest } from "./ledger.ts";
import type { ProviderName } from "./provider.ts";

/** Every effect that the world in `dir` did, oldest first. It may be read while the world runs. */
export function readLedgers(dir: string): Record<ProviderName, LedgerEntry[]> {
  return { esign: readDone(dir, "esign"), crm: readDone(dir, "crm"), mail: readDone(dir, "mail") };
}

/** Every request that reached the world in `dir`, also those of which nothing came. */
export function readSeenRequests(dir: string): Record<ProviderName, SeenRequest[]> {
  return { esign: readSeen(dir, "esign"), crm: readSeen(dir, "crm"), mail: readSeen(dir, "mail") };
}
