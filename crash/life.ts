import { z } from "zod";

/** Where every process of a run finds the others, and what they share. */
export interface Surroundings {
  readonly databaseUrl: string;
  readonly schema: string;
  readonly providerUrl: string;
  /** Of the run's own Temporal server; none in a run of the embedded worker. */
  readonly temporalAddress?: string;
  /** The folder of what is written down beside the database: ledger, attempts and acknowledgements. */
  readonly dir: string;
}

/** What a process of a run does. Each runs in a process of its own, which is killed. */
export const ROLES = ["start", "drive", "work", "decide", "operate"] as const;
export type Role = (typeof ROLES)[number];

/** What a run is about; everything where it says nothing. */
export interface Focus {
  /** The names of the graphs whose threads are started. */
  readonly graphs?: readonly string[];
  readonly plans?: readonly Plan[];
  /** Where half of the processes are killed. */
  readonly failpoints?: readonly string[];
  /** The how manieth time that they come there. */
  readonly hit?: number;
  /** Hold processes still there until their leases have run out, and let them go on. */
  readonly freeze?: boolean;
  /** How long the provider takes for each effect. Milliseconds. */
  readonly providerMs?: number;
}

/** What a process is told on its command line. */
export interface ProcessInput extends Surroundings {
  readonly role: Role;
  /** Different for each process of a run: names its threads. */
  readonly serial: number;
  readonly seed: number;
  /** Where it kills itself, or holds itself still, and the how manieth time that it comes there. */
  readonly failpoint?: { readonly name: string; readonly hit: number; readonly signal: "SIGKILL" | "SIGSTOP" };
  readonly focus: Focus;
}

/** What a person does with a request that a thread makes; part of the thread's input. */
export const Plan = z.enum(["approve", "edit", "reject"]);
export type Plan = z.infer<typeof Plan>;

/** What every effect of a run carries: enough to tell from the ledger alone whose it is. */
export const Order = z.object({
  threadId: z.string(),
  /** Unique in the thread: the same step done twice is a doubled effect. */
  step: z.string(),
  amount: z.number().int(),
  plan: Plan,
});
export type Order = z.infer<typeof Order>;

/** One effect that the provider did. */
export interface LedgerLine {
  readonly kind: string;
  /** `undo` lines take a `do` back. */
  readonly verb: "do" | "undo";
  readonly key: string;
  readonly intentId: string;
  readonly order: Order;
}

/** What people and starters wrote down: before a call that they tried it, after it that it was confirmed. */
export type Note =
  | { readonly kind: "started"; readonly threadId: string }
  | {
      readonly kind: "deciding" | "decided";
      readonly intentId: string;
      readonly principal: string;
      readonly verdict: Plan;
      /** Of what the person meant: the payload seen, or the edited one. */
      readonly digest: string;
    };

/** A failure that no process of a run may have: a bug, not a kill. */
export interface Complaint {
  readonly role: Role;
  readonly message: string;
}
