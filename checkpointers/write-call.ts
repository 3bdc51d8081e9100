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

/** A call under the lease of its drive, if it has one. */
export function callOf(threadId: string, drive: Drive | undefined, parts: Partial<WriteCall>): WriteCall {
  const leaseToken = drive?.leaseToken ?? null;
  return { threadId, leaseToken, drive, writes: [], blobs: [], checkpoints: [], proposals: [], ...parts };
}

/** From a row as `PostgresSaver` dumps it. */
export function writeRow(row: readonly unknown[]): WriteRow {
  const [, ns, checkpointId, taskId, idx, channel, type, blob] = row as [
    string,
    string,
    string,
    string,
    number,
    string,
    string,
    Uint8Array,
  ];
  return { ns, checkpointId, taskId, idx, channel, type, blob };
}

/** From a row as `PostgresSaver` dumps it. */
export function blobRow(row: readonly unknown[]): BlobRow {
  const [, ns, channel, version, type, blob] = row as [string, string, string, string, string, Uint8Array | undefined];
  return { ns, channel, version, type, blob };
}
