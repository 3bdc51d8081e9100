import type { ChildProcessByStdio } from "node:child_process";
import type { Readable } from "node:stream";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import type pg from "pg";
import { z } from "zod";
import type { DurableBackend } from "../../backend.ts";
import { type Commitment, type CommitmentDefinition, defineCommitment } from "../../commitment.ts";
import type { Principal } from "../../decision.ts";
import { type AnyGraph, defineGraph, type Graph } from "../../graph.ts";
import type { ExecutionIntent } from "../../intent.ts";
import type { Outcome } from "../../outcome.ts";
import { type Countersign, countersign } from "../../runtime/countersign.ts";
import type { CountersignOptions } from "../../runtime/options.ts";
import { commit } from "../../wait/commit.ts";
import { moveClock } from "../clock.ts";

/** What a backend's author gives the suite. */
export interface BackendUnderTest {
  /** A Postgres database for the suite alone: it moves the clock of the schema `countersign`. */
  readonly pool: pg.Pool;
  /**
   * The backend as one process would configure it. Called for each process that a case plays; those of
   * one scope share whatever queue the backend has, and no other scope does.
   */
  backend(scope: string): DurableBackend;
  /**
   * Starts a process that calls `conformanceProcess(job, { pool, backend })`, with its standard output in a
   * pipe: a script of yours, which takes `job` as an argument. The suite kills it.
   */
  spawn(job: string): ConformanceChild;
}

/** What `child_process.spawn(…, { stdio: ["ignore", "pipe", "inherit"] })` returns. */
export type ConformanceChild = ChildProcessByStdio<null, Readable, null>;

/** One promise of the contract, and the try to break it. Rejects when the backend does not keep it. */
export interface BackendCase {
  readonly name: string;
  run(under: BackendUnderTest): Promise<void>;
}

export interface Asked {
  readonly n: number;
}
export interface Answered {
  readonly ref: string;
}
export type TestCommitment = Commitment<Asked, Answered>;
export type TestOutcome = Outcome<Asked, Answered>;
type TestGraph = Graph<typeof State.Update>;
type Declared = Partial<CommitmentDefinition<Asked, Answered>> & Pick<CommitmentDefinition<Asked, Answered>, "execute">;

/** The classes of a commitment that one manager must approve, and who that is. */
export const NEEDS_MANAGER = {
  sideEffectClass: "external_message",
  approvalClass: "A1",
  reversibilityClass: "R2",
} as const;
export const MIA: Principal = { id: "mia", roles: ["manager"] };

/** Longer than any lease here: whoever held one has lost it when this has passed. */
export const PAST_LEASE_MS = 3_600_000;

/** How far each database's clock was moved: forward only, since the cases of a run share it. */
const movedMs = new WeakMap<pg.Pool, number>();
let serial = 0;

/** What a case works with: names of its own, processes, the clock, and what went wrong in silence. */
export class World {
  readonly scope: string;
  /** What no caller was told of. A case that expects some takes them out. */
  readonly errors: unknown[] = [];
  readonly #under: BackendUnderTest;
  readonly #opened: Countersign[] = [];

  constructor(under: BackendUnderTest, scope = `conformance-${process.pid}-${++serial}`) {
    this.#under = under;
    this.scope = scope;
  }

  get pool(): pg.Pool {
    return this.#under.pool;
  }

  /** A process that serves these graphs. */
  async process(graphs: readonly AnyGraph[], options: Partial<CountersignOptions> = {}): Promise<Countersign> {
    const cs = await countersign({
      database: this.pool,
      graphs,
      backend: this.#under.backend(this.scope),
      onError: (error) => this.errors.push(error),
      ...options,
    });
    this.#opened.push(cs);
    return cs;
  }

  /** A process of its own, which can be killed. */
  spawn(job: string): ConformanceChild {
    return this.#under.spawn(job);
  }

  /** Lets this much time pass for everything that asks the database what time it is. */
  async later(ms: number): Promise<void> {
    const moved = (movedMs.get(this.pool) ?? 0) + ms;
    movedMs.set(this.pool, moved);
    await moveClock(this.pool, { byMs: moved });
  }

  /** What the database calls now, plus this much. */
  inMs(ms: number): Date {
    return new Date(Date.now() + (movedMs.get(this.pool) ?? 0) + ms);
  }

  /** A commitment that runs without a person, so that a case is about its execution alone. */
  effect(declared: Declared): TestCommitment {
    return defineCommitment<Asked, Answered>({
      name: `${this.scope}-effect-${++serial}`,
      version: 1,
      input: z.object({ n: z.number() }),
      output: z.object({ ref: z.string() }),
      sideEffectClass: "internal_write",
      approvalClass: "A0",
      reversibilityClass: "R1",
      sensitivityClass: "S1",
      ...declared,
    });
  }

  /** A graph that commits to `count` of these at once, and keeps what became of them. */
  graph(commitment: TestCommitment): TestGraph {
    return this.#graph(commitment, {}, ({ count }) =>
      Promise.all(Array.from({ length: count }, (_, n) => commit(commitment, { n }, { key: `n-${n}` }))),
    );
  }

  /** A graph that commits to one after the other, and undoes all if one fails. */
  saga(commitment: TestCommitment): TestGraph {
    return this.#graph(commitment, { onFailure: "compensate" }, async ({ count }) => {
      const outcomes: TestOutcome[] = [];
      for (let n = 0; n < count; n++) outcomes.push(await commit(commitment, { n }, { key: `n-${n}` }));
      return outcomes;
    });
  }

  #graph(
    commitment: TestCommitment,
    options: { readonly onFailure?: "compensate" },
    act: (state: typeof State.State) => Promise<TestOutcome[]>,
  ) {
    return defineGraph({
      name: `${this.scope}-graph-${++serial}`,
      version: 1,
      durability: "durable",
      commitments: [commitment],
      ...options,
      graph: new StateGraph(State)
        .addNode("act", async (state) => ({ outcomes: await act(state) }))
        .addEdge(START, "act")
        .addEdge("act", END),
    });
  }

  async close(): Promise<void> {
    for (const cs of this.#opened) await cs.close();
  }
}

const State = Annotation.Root({ count: Annotation<number>, outcomes: Annotation<TestOutcome[]> });

/** Wraps a case: opens its world, and refuses errors that it did not expect. */
export function backendCase(name: string, act: (world: World) => Promise<void>): BackendCase {
  return {
    name,
    async run(under) {
      const world = new World(under);
      try {
        await act(world);
      } finally {
        await world.close();
      }
      if (world.errors.length > 0)
        throw new AggregateError(world.errors, `'${name}' met errors that it did not expect`);
    },
  };
}

/** The only intent of a thread, or its n-th. */
export async function intentOf(cs: Countersign, threadId: string, n = 0): Promise<ExecutionIntent> {
  const intent = (await cs.intents(threadId))[n];
  if (intent === undefined) throw new Error(`The thread ${threadId} has no intent ${n}`);
  return intent;
}

/** What a thread that has been worked off said of its intents; if nobody drives it, this says so soon. */
export async function outcomesOf(cs: Countersign, threadId: string): Promise<TestOutcome[]> {
  const result = await cs.result<{ outcomes: TestOutcome[] }>(threadId, { signal: AbortSignal.timeout(10_000) });
  return result.output?.outcomes ?? [];
}

/** Holds whoever passes until it is opened; `reached` resolves when somebody stands there. */
export interface Gate {
  pass(): Promise<void>;
  reached(count?: number): Promise<void>;
  open(): void;
}

export function gate(): Gate {
  let open: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  let arrived = 0;
  const watchers: { readonly count: number; readonly resolve: () => void }[] = [];
  return {
    open,
    pass() {
      arrived++;
      for (const watcher of watchers) if (watcher.count <= arrived) watcher.resolve();
      return opened;
    },
    reached(count = 1) {
      return new Promise((resolve) => {
        if (arrived >= count) resolve();
        else watchers.push({ count, resolve });
      });
    },
  };
}
