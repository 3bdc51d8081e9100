import { randomUUID } from "node:crypto";
import { Annotation, Command, END, interrupt, START, StateGraph } from "@langchain/langgraph";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { type Countersign, commit, countersign, defineCommitment, defineGraph, requestDecision } from "countersign";
import { postgres } from "countersign/postgres";
import type pg from "pg";
import { z } from "zod";
import { withDatabase } from "./bench-database.ts";
import { startGraphile } from "./graphile.ts";
import { atMost, type BenchResult, quantile, within } from "./measure.ts";

/** Taken one after the other, ours and the peer's in turn, with nothing else going on: a latency, not a throughput. */
const SAMPLES = 500;
const BUDGET_MS = 16_000;
const WARM_UP = 200;

const State = Annotation.Root({ ended: Annotation<string> });

/** Milliseconds from when somebody says `from()` to when somebody else says `to()`. */
export class Stopwatch {
  #start = 0;
  elapsedMs = Number.NaN;
  readonly from = (): void => {
    this.#start = performance.now();
  };
  readonly to = (): void => {
    this.elapsedMs = performance.now() - this.#start;
  };
}

/** How soon what a graph asks for is begun, and how soon a graph goes on once a person has decided. */
export function benchLatency(): Promise<BenchResult[]> {
  return withDatabase(async (database) => {
    const pool = database.pool();
    const watch = new Stopwatch();
    const graphs = [committing(watch), deciding(watch)] as const;
    await using cs = await countersign({ database: pool, graphs: [...graphs], backend: postgres() });
    const stop = new AbortController();
    const working = cs.work({ signal: stop.signal });
    const begun = await besideGraphile(pool, watch, () => runToEnd(cs, graphs[0], watch));
    const continued = await besideResume(pool, watch, () => runThroughDecision(cs, graphs[1], watch));
    stop.abort();
    await working;
    return [
      atMost(1.5, "commit → handler start, p50", "ms", ratioOf(begun, 0.5)),
      atMost(1.5, "commit → handler start, p99", "ms", ratioOf(begun, 0.99)),
      within(10, "approve → graph continues, p50, beside resume", "ms", ratioOf(continued, 0.5)),
    ];
  });
}

/** A graph that has one effect carried out, of the commitment `<name>.send`. */
export const committing = (watch: Stopwatch, name = "committing") => {
  const effect = defineCommitment({
    name: `${name}.send`,
    version: 1,
    sideEffectClass: "internal_write",
    approvalClass: "A0",
    reversibilityClass: "R1",
    sensitivityClass: "S1",
    input: z.object({}),
    output: z.object({}),
    execute: async () => {
      watch.to();
      return {};
    },
  });
  let committed = false;
  const send = async () => {
    // The second pass finds the outcome; only the first one asks for anything.
    if (!committed) watch.from();
    committed = true;
    const { status } = await commit(effect, {});
    committed = false;
    return { ended: status };
  };
  const graph = new StateGraph(State).addNode("send", send).addEdge(START, "send").addEdge("send", END);
  return defineGraph({ name, version: 1, durability: "durable", commitments: [effect], graph });
};

const deciding = (watch: Stopwatch) => {
  const ask = async () => {
    const { status } = await requestDecision({ name: "bench.decide", payload: { n: 1 } });
    watch.to();
    return { ended: status };
  };
  const graph = new StateGraph(State).addNode("ask", ask).addEdge(START, "ask").addEdge("ask", END);
  return defineGraph({ name: "deciding", version: 1, durability: "durable", graph });
};

type BenchGraph = ReturnType<typeof deciding>;

export async function runToEnd(cs: Countersign, graph: BenchGraph, watch: Stopwatch): Promise<number> {
  const { threadId } = await cs.start(graph, { ended: "" } as never);
  await cs.result(threadId);
  return watch.elapsedMs;
}

async function runThroughDecision(cs: Countersign, graph: BenchGraph, watch: Stopwatch): Promise<number> {
  const { threadId, pending } = await cs.start(graph, { ended: "" } as never);
  const [intent] = pending;
  if (intent === undefined) throw new Error("nothing is pending");
  watch.from();
  await cs.approve(intent.id, { by: { id: "mia", roles: ["manager"] }, digest: intent.digest });
  await cs.result(threadId);
  return watch.elapsedMs;
}

interface Samples {
  readonly ours: number[];
  readonly peer: number[];
}

async function besideGraphile(pool: pg.Pool, watch: Stopwatch, ours: () => Promise<number>): Promise<Samples> {
  let completed: () => void = () => {};
  const graphile = await startGraphile(pool, 24, watch.to);
  graphile.runner.events.on("job:complete", () => completed());
  const peer = async (): Promise<number> => {
    const done = new Promise<void>((resolve) => {
      completed = resolve;
    });
    watch.from();
    await graphile.addJob("effect", {});
    await done;
    return watch.elapsedMs;
  };
  try {
    return await inTurn(ours, peer);
  } finally {
    await graphile.stop();
  }
}

/** Plain LangGraph: one call resumes the thread, with nothing in between that could say no. */
async function besideResume(pool: pg.Pool, watch: Stopwatch, ours: () => Promise<number>): Promise<Samples> {
  const checkpointer = new PostgresSaver(pool);
  await checkpointer.setup();
  const ask = () => {
    const status = interrupt({ n: 1 });
    watch.to();
    return { ended: status };
  };
  const builder = new StateGraph(State).addNode("ask", ask).addEdge(START, "ask").addEdge("ask", END);
  const graph = builder.compile({ checkpointer });
  return inTurn(ours, async () => {
    const config = { configurable: { thread_id: randomUUID() }, durability: "sync" as const };
    await graph.invoke({ ended: "" }, config);
    watch.from();
    await graph.invoke(new Command({ resume: "approved" }), config);
    return watch.elapsedMs;
  });
}

export async function inTurn(
  ours: () => Promise<number>,
  peer: () => Promise<number>,
  { budgetMs = BUDGET_MS, warmUp = WARM_UP } = {},
): Promise<Samples> {
  const samples: Samples = { ours: [], peer: [] };
  const until = performance.now() + budgetMs;
  for (let sample = -warmUp; sample < SAMPLES; sample++) {
    if (sample > 0 && performance.now() > until) break;
    const [mine, theirs] = [await ours(), await peer()];
    if (sample < 0) continue;
    samples.ours.push(mine);
    samples.peer.push(theirs);
  }
  return samples;
}

export function ratioOf({ ours, peer }: Samples, share: number) {
  const [mine, theirs] = [quantile(ours, share), quantile(peer, share)];
  return { ours: mine, peer: theirs, ratio: mine / theirs };
}
