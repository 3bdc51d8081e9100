import { createHash } from "node:crypto";

/** One line of the audit trail: classes, ids, digests, actor and reason code; never a payload. */
export interface AuditRow {
  readonly threadId: string;
  /** From 1, without gaps, per thread. */
  readonly seq: number;
  readonly tenant: string;
  readonly at: Date;
  /** The same instant to the microsecond, as it was hashed. */
  readonly atMicroseconds: string;
  readonly action: string;
  readonly actorType: string;
  readonly actorId: string;
  readonly intentId: string | null;
  /** `name@version` of the commitment, or of the graph for a row about the thread. */
  readonly commitment: string | null;
  readonly classes: string | null;
  readonly digest: string | null;
  /** The status that the intent or thread had after it. */
  readonly outcome: string | null;
  readonly reasonCode: string | null;
  readonly correlationId: string;
  readonly traceId: string | null;
  readonly attempt: number | null;
  /** SHA-256, in hex, over the hash of the row before and this row. */
  readonly hash: string;
}

/** The first row at which a chain does not hold. */
export interface AuditBreak {
  readonly threadId: string;
  readonly seq: number;
  readonly problem: "row changed" | "row missing" | "end missing";
}

/** The hash of a row, from the one before it; `""` before the first. The database computes the same (migration 0003). */
export function auditHash(previous: string, row: Omit<AuditRow, "hash">): string {
  const fields = [
    row.threadId,
    row.seq,
    row.tenant,
    row.atMicroseconds,
    row.action,
    row.actorType,
    row.actorId,
    row.intentId,
    row.commitment,
    row.classes,
    row.digest,
    row.outcome,
    row.reasonCode,
    row.correlationId,
    row.traceId,
    row.attempt,
  ];
  // Postgres writes json_build_array with ", " between the elements.
  const text = `[${fields.map((field) => JSON.stringify(field)).join(", ")}]`;
  return createHash("sha256").update(Buffer.from(previous, "hex")).update(text, "utf8").digest("hex");
}

/**
 * Verifies one thread's chain, offline: needs nothing but the exported rows and, to notice a cut-off
 * end, the head that was noted elsewhere.
 * @returns the first break, or `undefined` when the chain holds.
 */
export function verifyAuditChain(
  rows: readonly AuditRow[],
  head?: { readonly seq: number; readonly hash: string },
): AuditBreak | undefined {
  let previous = "";
  for (const [index, row] of rows.entries()) {
    const { threadId, seq } = row;
    if (seq !== index + 1) return { threadId, seq: index + 1, problem: "row missing" };
    if (auditHash(previous, row) !== row.hash || !isSameInstant(row)) return { threadId, seq, problem: "row changed" };
    previous = row.hash;
  }
  if (head !== undefined && (head.seq !== rows.length || head.hash !== previous)) {
    return { threadId: rows[0]?.threadId ?? "", seq: rows.length + 1, problem: "end missing" };
  }
  return undefined;
}

/** `at` is shown, `atMicroseconds` is hashed: they must say the same. An exported row may carry `at` as text. */
function isSameInstant({ at, atMicroseconds }: AuditRow): boolean {
  return new Date(at).getTime() === Math.floor(Number(atMicroseconds) / 1_000);
}
