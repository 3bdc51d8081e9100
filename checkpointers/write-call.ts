import type { Drive } from "../src/drive.ts";
import type { IntentProposal } from "../src/intent.ts";

/** One row for `checkpoint_writes`. */
export interface WriteRow {
  readonly ns: string;
  readonly checkpointId: string;
  readonly taskId: string;
  readonly idx: number;
  readonly channel: string;
  readonly type: string;
  readonly blob: Uint8Array;
}

/** One row for `checkpoint_blobs`; an empty channel has no blob. */
export interface BlobRow {
  readonly ns: string;
  readonly channel: string;
  readonly version: string;
  readonly type: string;
  readonly blob: Uint8Array | undefined;
}

/** One row for `checkpoints`. */
export interface CheckpointRow {
  readonly ns: string;
  readonly id: string;
  readonly parent: string | undefined;
  readonly checkpoint: unknown;
  readonly metadata: unknown;
}

/** What one `put` or `putWrites` wants written: all of it or nothing, under its own fence. */
export interface WriteCall {
  readonly threadId: string;
  /** The lease under which it may write; `null` for a thread that Countersign does not drive. */
  readonly leaseToken: number | null;
  /** The pass that it is of, if it is one of Countersign's. */
  readonly drive: Pick<Drive, "persistenceError"> | undefined;
  readonly writes: readonly WriteRow[];
  readonly blobs: readonly BlobRow[];
  readonly checkpoints: readonly CheckpointRow[];
  readonly proposals: readonly IntentProposal[];
}
