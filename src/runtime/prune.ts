import type { Database } from "../database/client.ts";
import { OptionError } from "../errors.ts";

export interface PruneOptions {
  /** Threads that ended earlier than this go. */
  readonly endedBefore: Date;
  /** Keeps their audit rows, which hold no payload, and adds one that says so. Defaults to true. */
  readonly keepAudit?: boolean;
}

/** How much was taken away. */
export interface Pruned {
  readonly threads: number;
  readonly intents: number;
}

/** Threads per transaction, so that nobody waits long for a lock. */
const BATCH = 200;

/** Prunes in small transactions, until nothing is left to prune. */
export async function pruneThreads(database: Database, options: PruneOptions): Promise<Pruned> {
  const { endedBefore, keepAudit = true } = options ?? {};
  if (!(endedBefore instanceof Date) || Number.isNaN(endedBefore.getTime()) || typeof keepAudit !== "boolean") {
    throw new OptionError("prune() needs to know what may go", {
      remedy: "Pass { endedBefore: new Date(…) }, and keepAudit: false only where the audit trail is exported.",
    });
  }
  const total = { threads: 0, intents: 0 };
  for (;;) {
    const [pruned] = await database.transaction((tx) =>
      tx.query<Pruned>({
        text: `select threads, intents from ${tx.schema}.prune($1, $2, $3)`,
        values: [endedBefore, keepAudit, BATCH],
      }),
    );
    if (pruned === undefined || pruned.threads === 0) return total;
    total.threads += pruned.threads;
    total.intents += pruned.intents;
  }
}
