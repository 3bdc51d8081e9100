import type { AnyCommitment } from "./commitment.ts";
import type { Database } from "./database/client.ts";
import type { Wakeups } from "./database/wakeups.ts";
import type { ExecutionIntent } from "./intent.ts";

/*
 * The contract between the outbox and what carries it out.
 *
 * The row in `execution_intents` is authoritative, always. A backend takes runnable rows that name
 * it as their owner, and reports what became of them under the lease token that it got with the
 * claim; the database refuses everything else. What a crash leaves, at each step:
 *
 *   before the claim commits      the row is runnable: whoever comes next claims it.
 *   after the claim, before or    the lease runs out. At-least-once: runnable again, same key.
 *   during or after the call      At-most-once: `unknown`, until the provider or a person is asked.
 *   after the call's settlement   the outcome stands and the thread is ready; nothing is re-run.
 *
 * A backend never decides whether something may run: a row that lacks a decision cannot become
 * runnable, and the executor re-checks the digest of what it is about to run (G2, G3).
 */

/** What the runtime gives a backend to work with. */
export interface BackendHost {
  readonly database: Database;
  readonly wakeups: Wakeups;
  /** The commitments that this process registers, by `name@version`: nothing else is ever claimed (rule 14). */
  readonly commitments: ReadonlyMap<string, AnyCommitment>;
  /** Names this process in leases and audit rows. */
  readonly workerId: string;
  /** How long a lease on an intent lasts without a heartbeat. Milliseconds. */
  readonly leaseMs: number;
  /** How often to look without having been notified. Milliseconds. */
  readonly pollIntervalMs: number;
  /** The largest output or receipt, as canonical JSON. Bytes. */
  readonly maxPayloadBytes: number;
  /** For what no caller can be told of: a failed poll, a lost lease. */
  readonly onError: (error: unknown) => void;
}

/** A way to carry out intents: `postgres()` ships; `temporal()` is another. */
export interface DurableBackend {
  /** Recorded in each intent's row as its owner (G7). Stable: renaming it orphans what is open. */
  readonly name: string;
  /** For one that stands for several: the names of all of them. Defaults to its own name. */
  readonly names?: readonly string[];
  /** For one that stands for several: which of them owns what is proposed of this commitment. Defaults to itself. */
  ownerOf?(commitment: AnyCommitment): string;
  /** Under which name, and where, this backend serves a commitment: for the inventory. Defaults to nothing to say. */
  catalogue?(commitment: AnyCommitment): Readonly<Record<string, string>>;
  /** Called once by `countersign()`. Does not start to work yet. */
  open(host: BackendHost): BackendWorker;
}

/** A backend that is bound to an outbox. */
export interface BackendWorker {
  /** Claims and carries out what is due, until the signal aborts; then drains what it has begun. */
  run(signal: AbortSignal): Promise<void>;
  /** Does everything that is due now, and returns how much that was; 0 when there was nothing. For tests and scripts. */
  tick(): Promise<number>;
  /** An intent of this backend's was ended or cancelled in the database: let go of it. */
  released(intent: ExecutionIntent): void;
  /** Waits for running handlers, at most this long; then aborts their signals and lets the leases run out. */
  drain(timeoutMs: number): Promise<void>;
}
