import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import type pg from "pg";
import { z } from "zod";
import {
  type Commitment,
  type CommitOptions,
  commit,
  defineCommitment,
  defineGraph,
  type ExecutionIntent,
} from "../../src/index.ts";

/** What every commitment of these tests takes: enough to edit, and to make a key of. */
export interface Letter {
  readonly to: string;
  readonly text: string;
}

export interface Sent {
  readonly id: string;
}

type Declared = Omit<Parameters<typeof defineCommitment<Letter, Sent>>[0], "input" | "output" | "version">;

/** Everything that a handler of these tests was called with, in order. */
export const sent: { readonly commitment: string; readonly input: Letter; readonly key: string }[] = [];

/** A commitment to send a letter; of class A1/R2/S1 unless it says otherwise. */
export function letter(name: string, changes: Partial<Declared> = {}): Commitment<Letter, Sent> {
  return defineCommitment<Letter, Sent>({
    name,
    version: 1,
    sideEffectClass: "external_message",
    approvalClass: "A1",
    reversibilityClass: "R2",
    sensitivityClass: "S1",
    input: z.object({ to: z.string(), text: z.string().max(1_000) }),
    output: z.object({ id: z.string() }),
    execute: async (input, { idempotencyKey: key }) => {
      sent.push({ commitment: name, input, key });
      return { id: `sent-${sent.length}` };
    },
    ...changes,
  });
}

const State = Annotation.Root({
  letter: Annotation<Letter>,
  outcome: Annotation<{ readonly status: string; readonly input?: Letter }>,
});

/** A durable graph of one node, which commits to one letter and ends with what became of it. */
export function graphOf(commitment: Commitment<Letter, Sent>, options: CommitOptions & { readonly wait?: true } = {}) {
  return defineGraph({
    name: commitment.name,
    version: 1,
    durability: "durable",
    commitments: [commitment],
    graph: new StateGraph(State)
      .addNode("send", async (state) => {
        const { status, input } = await commit(commitment, state.letter, options);
        return { outcome: { status, input } };
      })
      .addEdge(START, "send")
      .addEdge("send", END),
  });
}

/** The only request that a thread waits for. */
export function onlyOne(pending: readonly ExecutionIntent[]): ExecutionIntent {
  const [intent, ...more] = pending;
  if (intent === undefined || more.length > 0) throw new Error(`${pending.length} requests are pending`);
  return intent;
}

/** Everything that the database holds about threads, decisions and the audit trail, to compare before and after. */
export async function everything(pool: Pick<pg.Pool, "query">): Promise<Record<string, string[]>> {
  const dump: Record<string, string[]> = {};
  for (const table of ["threads", "execution_intents", "decisions", "events", "audit_log", "audit_chains"]) {
    const { rows } = await pool.query<{ row: string }>(
      `select to_jsonb(t)::text as row from countersign.${table} t order by 1`,
    );
    dump[table] = rows.map(({ row }) => row);
  }
  return dump;
}
