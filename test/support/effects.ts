import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import type pg from "pg";
import { z } from "zod";
import { type Commitment, type CommitmentDefinition, commit, defineCommitment, defineGraph } from "../../src/index.ts";
import type { Outcome } from "../../src/outcome.ts";
import { moveClock } from "../../src/testing/clock.ts";

export interface Asked {
  readonly n: number;
}
export interface Answered {
  readonly ref: string;
}
export type TestCommitment = Commitment<Asked, Answered>;
export type TestOutcome = Outcome<Asked, Answered>;
type Definition = CommitmentDefinition<Asked, Answered>;

let serial = 0;

/** A lower-case name that nothing else in this file has: the tests of a file share one database. */
export function uniqueName(what: string): string {
  serial++;
  return `${what}-${serial}`;
}

/** A commitment that runs without a person, so that a test is about its execution alone. */
export function effect(definition: Partial<Definition> & Pick<Definition, "execute">): TestCommitment {
  return defineCommitment<Asked, Answered>({
    name: uniqueName("effect"),
    version: 1,
    input: z.object({ n: z.number() }),
    output: z.object({ ref: z.string() }),
    sideEffectClass: "internal_write",
    approvalClass: "A0",
    reversibilityClass: "R1",
    sensitivityClass: "S1",
    ...definition,
  });
}

/** The classes of a commitment that one manager must approve. */
export const NEEDS_MANAGER = {
  sideEffectClass: "external_message",
  approvalClass: "A1",
  reversibilityClass: "R2",
} as const;

/** Who approves those. */
export const MIA = { id: "mia", roles: ["manager"] } as const;

const OneState = Annotation.Root({ n: Annotation<number>, outcome: Annotation<TestOutcome> });

/** A graph of one node that commits once and keeps the outcome. */
export function graphOf(commitment: TestCommitment, { onReject }: { readonly onReject?: "compensate" } = {}) {
  return defineGraph({
    name: uniqueName("one"),
    version: 1,
    durability: "durable",
    commitments: [commitment],
    ...(onReject === undefined ? {} : { onReject }),
    graph: new StateGraph(OneState)
      .addNode("act", async (state) => ({ outcome: await commit(commitment, { n: state.n }) }))
      .addEdge(START, "act")
      .addEdge("act", END),
  });
}

const ManyState = Annotation.Root({ count: Annotation<number>, outcomes: Annotation<TestOutcome[]> });

/** A graph of one node that commits `count` times at once. */
export function manyOf(commitment: TestCommitment, name: string = uniqueName("many")) {
  return defineGraph({
    name,
    version: 1,
    durability: "durable",
    commitments: [commitment],
    graph: new StateGraph(ManyState)
      .addNode("act", async (state) => {
        const numbers = Array.from({ length: state.count }, (_, n) => n);
        return { outcomes: await Promise.all(numbers.map((n) => commit(commitment, { n }, { key: `n-${n}` }))) };
      })
      .addEdge(START, "act")
      .addEdge("act", END),
  });
}

/** The database's clock, moved forward only, for a file whose tests follow each other on one database. */
export function clockOf(pool: pg.Pool) {
  let movedMs = 0;
  return {
    /** Lets this much time pass for everything that asks the database what time it is. */
    later(ms: number): Promise<void> {
      movedMs += ms;
      return moveClock(pool, { byMs: movedMs });
    },
    /** What the database calls now, plus this much. */
    inMs: (ms: number): Date => new Date(Date.now() + movedMs + ms),
  };
}

/** Longer than any lease of a test: whoever held one has lost it when this has passed. */
export const PAST_LEASE_MS = 3_600_000;
