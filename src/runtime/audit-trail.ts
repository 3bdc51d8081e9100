import { z } from "zod";
import { checker, text } from "../arguments.ts";
import { type AuditBreak, type AuditRow, verifyAuditChain } from "../audit.ts";
import { loadAudit, loadChainHeads } from "../database/audit-log.ts";
import type { Database } from "../database/client.ts";

const checkList = checker("audit.list()", { threadId: text });
const checkVerify = checker("audit.verify()", { options: z.strictObject({ threadId: text.optional() }) });

/** The audit trail of a database (G8). */
export class AuditTrail {
  readonly #database: () => Database;

  /** @internal */
  constructor(database: () => Database) {
    this.#database = database;
  }

  /** Every row of a thread, in order: what `verifyAuditChain` takes, also offline. */
  async list(threadId: string): Promise<AuditRow[]> {
    checkList({ threadId });
    const rows: AuditRow[] = [];
    for (;;) {
      const page = await loadAudit(this.#database(), { threadId, afterSeq: rows.at(-1)?.seq ?? 0 });
      rows.push(...page);
      if (page.length === 0) return rows;
    }
  }

  /** The first break of each chain that does not hold, of one thread or of all; empty when all hold. */
  async verify(options: { readonly threadId?: string } = {}): Promise<AuditBreak[]> {
    checkVerify({ options });
    const { threadId } = options;
    const breaks: AuditBreak[] = [];
    for (const head of await loadChainHeads(this.#database(), threadId)) {
      // The chain may have grown since its head was read.
      const rows = (await this.list(head.threadId)).filter((row) => row.seq <= head.seq);
      const broken = verifyAuditChain(rows, head);
      if (broken !== undefined) breaks.push({ ...broken, threadId: head.threadId });
    }
    return breaks;
  }
}
