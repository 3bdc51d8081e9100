import type { DurableBackend } from "countersign";
import type { Surroundings } from "./life.ts";

/** What the intents of a run are carried out by. */
export interface Backing {
  open(surroundings: Surroundings): DurableBackend;
  /** Whether an error says that a server was away which a run of this backend kills. */
  isAway(error: unknown): boolean;
}
