import { Annotation, END, Send, START, StateGraph } from "@langchain/langgraph";
import {
  type AnyCommitment,
  type AnyGraph,
  commit,
  commitAll,
  defineGraph,
  requestDecision,
  sleep,
  waitForEvent,
} from "countersign";
import { z } from "zod";
import type { Effects } from "./commitments.ts";
import { Order, type Plan } from "./life.ts";

/** What each thread of a run starts with. */
export interface ThreadInput {
  readonly threadId: string;
  readonly plan: Plan;
}

/** What a thread has been told so far: `<intent id> <status>` of each of its waits, each exactly once. */
const State = Annotation.Root({
  threadId: Annotation<string>,
  plan: Annotation<Plan>,
  log: Annotation<string[]>({ reducer: (a, b) => [...a, ...b], default: () => [] }),
});
type State = typeof State.State;
type Told = Pick<State, "log">;
type Effect = Effects[keyof Effects];

const order = ({ threadId, plan }: Pick<State, "threadId" | "plan">, step: string): Order => ({
  threadId,
  step,
  amount: step.length,
  plan,
});
const tell = (...outcomes: readonly { readonly intentId: string; readonly status: string }[]): Told => ({
  log: outcomes.map(({ intentId, status }) => `${intentId} ${status}`),
});
/** A node that commits once. */
const one = (effect: Effect, step: string) => async (state: State) => tell(await commit(effect, order(state, step)));

/** The graphs of a run: each way of waiting that the wait protocol knows. */
export function graphsOf(effects: Effects): AnyGraph[] {
  const { free, gated, twoPeople, undoable, once, blind, outside } = effects;
  const durable = (name: string, builder: Builder, more: { onReject?: "compensate" } = {}): AnyGraph => {
    const commitments: readonly AnyCommitment[] = Object.values(effects);
    return defineGraph({ name, version: 1, durability: "durable", commitments, graph: builder, ...more });
  };
  return [
    durable("serial", chain({ first: one(free, "first"), second: one(gated, "second"), third: one(free, "third") })),
    durable("careful", chain({ reconciled: one(once, "reconciled"), blind: one(blind, "blind") })),
    durable("reviewed", chain({ offer: one(twoPeople, "offer"), notice: one(free, "notice") })),
    durable("awaited", chain({ handed: one(outside, "handed"), noted: one(free, "noted") })),
    durable("fan-out", fanOut(free)),
    durable("nested", chain({ inner: subgraph(gated, free), outer: one(free, "outer") })),
    durable("timed", timed(free)),
    durable("together", chain({ pair: pair(gated, undoable), after: one(free, "after") })),
    durable("loose", loose(free)),
    durable("undone", chain({ a: one(undoable, "a"), b: one(undoable, "b"), c: one(gated, "c"), d: one(free, "d") }), {
      onReject: "compensate",
    }),
  ];
}

// biome-ignore lint/suspicious/noExplicitAny: the names of a builder's nodes are of no interest here
type Builder = StateGraph<any, any, any, any>;
type Node = (state: State) => Promise<Told>;

/** Nodes one after the other. A node may be a compiled subgraph. */
function chain(nodes: Readonly<Record<string, Node | ReturnType<Builder["compile"]>>>): Builder {
  const builder: Builder = new StateGraph(State);
  let before: string = START;
  for (const [name, node] of Object.entries(nodes)) {
    builder.addNode(name, node as Node);
    builder.addEdge(before, name);
    before = name;
  }
  return builder.addEdge(before, END);
}

function subgraph(gated: Effect, free: Effect) {
  return chain({ asked: one(gated, "asked"), done: one(free, "done") }).compile();
}

/** Three branches by `Send`, one of which waits twice at once. */
function fanOut(free: Effect): Builder {
  const Branch = Annotation.Root({ ...State.spec, branch: Annotation<number> });
  return (new StateGraph(State) as Builder)
    .addNode("branch", async (state: typeof Branch.State) => {
      const step = `branch-${state.branch}`;
      if (state.branch > 0) return tell(await commit(free, order(state, step)));
      return tell(
        ...(await Promise.all(["left", "right"].map((side) => commit(free, order(state, `${step}-${side}`))))),
      );
    })
    .addConditionalEdges(START, (state: State) => [0, 1, 2].map((branch) => new Send("branch", { ...state, branch })))
    .addNode("joined", one(free, "joined"))
    .addEdge("branch", "joined")
    .addEdge("joined", END);
}

function timed(free: Effect): Builder {
  return chain({
    slept: async () => {
      await sleep(300);
      return { log: [] };
    },
    heard: async () => tell(await waitForEvent("go", { schema: z.object({ go: z.literal(true) }) })),
    decided: async (state) =>
      tell(await requestDecision({ name: "really", payload: order(state, "really"), schema: Order })),
    done: one(free, "done"),
  });
}

/** One that needs a person and one that does not, as one: a rejection of the first undoes the second. */
function pair(gated: Effect, undoable: Effect): Node {
  return async (state) =>
    tell(
      ...(await commitAll([
        { commitment: gated, input: order(state, "pair-gated") },
        { commitment: undoable, input: order(state, "pair-free") },
      ])),
    );
}

/** Records without waiting, beside a sibling that has nothing to write, and goes on. */
function loose(free: Effect): Builder {
  return (new StateGraph(State) as Builder)
    .addNode("record", async (state: State) => {
      const { intentId } = await commit(free, order(state, "recorded"), { wait: false });
      return { log: [`${intentId} recorded`] };
    })
    .addNode("beside", async () => ({}))
    .addNode("next", async () => ({ log: [] }))
    .addNode("last", one(free, "last"))
    .addEdge(START, "record")
    .addEdge(START, "beside")
    .addEdge("record", "next")
    .addEdge("next", "last")
    .addEdge("last", END);
}
