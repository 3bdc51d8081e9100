import { describe, expect, it } from "vitest";
import { auditHash } from "../../src/audit.ts";
import { type AuditRow, verifyAuditChain } from "../../src/index.ts";

const ACTIONS = ["thread.started", "intent.recorded", "decision.approved", "intent.claimed", "intent.succeeded"];

function aRow(seq: number, action: string): Omit<AuditRow, "hash"> {
  return {
    threadId: "t-1",
    seq,
    tenant: "default",
    at: new Date(1_767_268_800_000),
    atMicroseconds: "1767268800000123",
    action,
    actorType: "human",
    actorId: "mia",
    intentId: "00000000-0000-4000-8000-000000000001",
    commitment: "mail.send@1",
    classes: "A1/R1/S1/gated/external_message",
    digest: "ab12",
    outcome: "runnable",
    reasonCode: null,
    correlationId: "c-1",
    traceId: null,
    attempt: 0,
  };
}

/** A chain as the database would have written it. */
function aChain(): AuditRow[] {
  const rows: AuditRow[] = [];
  for (const action of ACTIONS) {
    const row = aRow(rows.length + 1, action);
    rows.push({ ...row, hash: auditHash(rows.at(-1)?.hash ?? "", row) });
  }
  return rows;
}

const headOf = (rows: readonly AuditRow[]) => ({ seq: rows.length, hash: rows.at(-1)?.hash ?? "" });

describe("auditHash", () => {
  it("is stable over releases", () => {
    expect(auditHash("", aRow(1, "thread.started"))).toMatchInlineSnapshot(
      `"e1a8c080352252f71ba0f5d5edfac2be1b192aad62082e62f3c68ac92de05c9f"`,
    );
    expect(auditHash("00ff", aRow(1, "thread.started"))).toMatchInlineSnapshot(
      `"e22b0ece4bdbc6b5aec1586c6f2a4ea6fff5038d6f7efd0713a6b433fde14f70"`,
    );
  });

  it("tells a field that is absent from one that is empty or says null", () => {
    const hashes = [null, "", "null"].map((reasonCode) => auditHash("", { ...aRow(1, "x"), reasonCode }));
    expect(new Set(hashes).size).toBe(3);
  });
});

describe("verifyAuditChain", () => {
  it("holds for what was written", () => {
    expect(verifyAuditChain(aChain())).toBeUndefined();
    expect(verifyAuditChain(aChain(), headOf(aChain()))).toBeUndefined();
    expect(verifyAuditChain([])).toBeUndefined();
    expect(verifyAuditChain([], { seq: 0, hash: "" })).toBeUndefined();
  });

  it("holds for rows that went through JSON, where a Date is a text", () => {
    expect(verifyAuditChain(JSON.parse(JSON.stringify(aChain())))).toBeUndefined();
  });

  const changes: Partial<Record<keyof AuditRow, unknown>> = {
    threadId: "t-2",
    tenant: "other",
    atMicroseconds: "1767268800000124",
    action: "decision.rejected",
    actorType: "executor_system",
    actorId: "eve",
    intentId: null,
    commitment: "mail.send@2",
    classes: null,
    digest: "ab13",
    outcome: "rejected",
    reasonCode: "none",
    correlationId: "c-2",
    traceId: "00-1",
    attempt: 1,
    hash: "00",
  };
  it.each(Object.entries(changes))("notices a changed %s", (field, value) => {
    const rows = aChain().map((row) => (row.seq === 3 ? { ...row, [field]: value } : row));
    expect(verifyAuditChain(rows)).toMatchObject({ seq: 3, problem: "row changed" });
  });

  it("notices a shown time that is not the hashed one", () => {
    const rows = aChain().map((row) => (row.seq === 3 ? { ...row, at: new Date(row.at.getTime() + 60_000) } : row));
    expect(verifyAuditChain(rows)).toMatchObject({ seq: 3, problem: "row changed" });
  });

  it("notices a changed row whose own hash was made to fit, at the next one", () => {
    const rows = aChain();
    const forged = { ...(rows[2] as AuditRow), actorId: "eve" };
    rows[2] = { ...forged, hash: auditHash(rows[1]?.hash ?? "", forged) };
    expect(verifyAuditChain(rows)).toEqual({ threadId: "t-1", seq: 4, problem: "row changed" });
  });

  it("notices a chain that was written anew, by the head that was noted elsewhere", () => {
    const rows = aChain();
    const last = { ...(rows[4] as AuditRow), actorId: "eve" };
    const rewritten = [...rows.slice(0, 4), { ...last, hash: auditHash(rows[3]?.hash ?? "", last) }];
    expect(verifyAuditChain(rewritten)).toBeUndefined();
    expect(verifyAuditChain(rewritten, headOf(rows))).toMatchObject({ problem: "end missing" });
  });

  it.each([0, 1, 3])("notices the missing row at place %i", (at) => {
    const rows = aChain().toSpliced(at, 1);
    expect(verifyAuditChain(rows)).toEqual({ threadId: "t-1", seq: at + 1, problem: "row missing" });
  });

  it("notices rows that changed places, or came twice", () => {
    const [first, second, ...rest] = aChain() as [AuditRow, AuditRow, ...AuditRow[]];
    expect(verifyAuditChain([second, first, ...rest])).toMatchObject({ seq: 1, problem: "row missing" });
    expect(verifyAuditChain([first, second, second, ...rest])).toMatchObject({ seq: 3, problem: "row missing" });
  });

  it("notices a cut-off end by the head, also when nothing is left", () => {
    const rows = aChain();
    expect(verifyAuditChain(rows.slice(0, 3))).toBeUndefined();
    expect(verifyAuditChain(rows.slice(0, 3), headOf(rows))).toEqual({
      threadId: "t-1",
      seq: 4,
      problem: "end missing",
    });
    expect(verifyAuditChain([], headOf(rows))).toEqual({ threadId: "", seq: 1, problem: "end missing" });
  });
});
