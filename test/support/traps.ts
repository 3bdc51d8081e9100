import { Annotation, StateGraph } from "@langchain/langgraph";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import type pg from "pg";
import { z } from "zod";
import { postgres } from "../../src/backends/postgres/index.ts";
import { type AnyGraph, type Countersign, countersign, defineCommitment, defineGraph } from "../../src/index.ts";

/*
 * What the tests of LangGraph's traps share: two commitments, a state that logs, and ways to look at
 * what is on record.
 */

/** Needs a person. */
export const send = defineCommitment({
  name: "mail.send",
  version: 1,
  sideEffectClass: "external_message",
  approvalClass: "A1",
  reversibilityClass: "R2",
  sensitivityClass: "S1",
  input: z.object({ to: z.string() }),
  output: z.object({}),
  execute: async () => ({}),
});

/** Needs nobody. */
export const note = defineCommitment({
  name: "crm.note",
  version: 1,
  sideEffectClass: "internal_write",
  approvalClass: "A0",
  reversibilityClass: "R1",
  sensitivityClass: "S1",
  input: z.object({ text: z.string() }),
  output: z.object({}),
  execute: async () => ({}),
});

export const State = Annotation.Root({
  log: Annotation<string[]>({ reducer: (all, more) => [...all, ...more], default: () => [] }),
});
export const builder = () => new StateGraph(State);

/** A durable graph that may commit both. */
export const durable = (name: string, graph: Parameters<typeof defineGraph>[0]["graph"]): AnyGraph =>
  defineGraph({ name, version: 1, durability: "durable", commitments: [send, note], graph });

export const open = (pool: pg.Pool, ...graphs: AnyGraph[]): Promise<Countersign> =>
  countersign({ database: pool, graphs, backend: postgres(), onError: () => {} });

export async function approveAll(cs: Countersign, threadId: string): Promise<void> {
  for (const intent of await cs.pending({ threadId })) {
    await cs.approve(intent.id, { by: { id: "mia", roles: ["manager"] }, digest: intent.digest });
  }
}

/** Each action of the thread with how often it is on record. */
export async function audited(cs: Countersign, threadId: string): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const { action } of await cs.audit.list(threadId)) counts[action] = (counts[action] ?? 0) + 1;
  return counts;
}

/** The channels of the task writes of a thread, in alphabetical order. */
export async function channelsOf(pool: pg.Pool, threadId: string): Promise<string[]> {
  const { rows } = await pool.query(
    "select channel from countersign.checkpoint_writes where thread_id = $1 order by channel",
    [threadId],
  );
  return rows.map((row) => row.channel);
}

/** What a LangGraph graph is invoked with on a thread. */
export const onThread = (threadId: string) => ({
  configurable: { thread_id: threadId },
  durability: "sync" as const,
});

/** LangGraph's own saver on the same tables. An `invoke` may throw while its writes are on their way: `settled` awaits them. */
export class StockSaver extends PostgresSaver {
  readonly #underWay: Promise<unknown>[] = [];

  constructor(pool: pg.Pool) {
    super(pool, undefined, { schema: "countersign" });
  }

  override put(...args: Parameters<PostgresSaver["put"]>): ReturnType<PostgresSaver["put"]> {
    const put = super.put(...args);
    this.#underWay.push(put);
    return put;
  }

  settled(): Promise<unknown> {
    return Promise.allSettled(this.#underWay);
  }
}
