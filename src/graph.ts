import type { BaseCheckpointSaver, BaseStore } from "@langchain/langgraph-checkpoint";
import { type AnyCommitment, isName } from "./commitment.ts";
import { DefinitionError } from "./errors.ts";
import type { ActorType } from "./policy.ts";

/**
 * How a graph's state must survive (design §2).
 * - `exit`: not at all; no checkpointer, no recovery, cannot commit or wait.
 * - `async`: checkpoints are written behind; a crash can lose the last steps, which is audited.
 * - `durable`: every step is persisted before the next starts. Needed to commit and to wait.
 */
export type Durability = "exit" | "async" | "durable";

/** A compiled LangGraph graph, as far as we use it. */
// biome-ignore lint/suspicious/noExplicitAny: LangGraph's Pregel has eleven type parameters; this is the part that is common to all
export interface CompiledGraph<Input = any, Output = any> {
  readonly "~InputType": Input;
  readonly "~OutputType": Output;
  // biome-ignore lint/suspicious/noExplicitAny: see above
  invoke(input: any, options?: any): Promise<any>;
  // biome-ignore lint/suspicious/noExplicitAny: see above
  stream(input: any, options?: any): Promise<AsyncIterable<any>>;
  // biome-ignore lint/suspicious/noExplicitAny: see above
  getState(config: any): Promise<any>;
  // biome-ignore lint/suspicious/noExplicitAny: see above
  getStateHistory(config: any, options?: any): AsyncIterable<any>;
  // biome-ignore lint/suspicious/noExplicitAny: see above
  updateState(config: any, values: any, asNode?: any): Promise<any>;
}

/** What a factory gets to compile with: the checkpointer, none for an `exit` graph, and the store, if there is one. */
export interface GraphDependencies {
  // biome-ignore lint/suspicious/noExplicitAny: LangGraph's own options do not take `undefined` under exactOptionalPropertyTypes
  readonly checkpointer: BaseCheckpointSaver | any;
  readonly store: BaseStore | undefined;
}

/** A StateGraph builder, or a factory for whatever compiles itself: `entrypoint`, `createAgent`. */
export type GraphSource =
  // biome-ignore lint/suspicious/noExplicitAny: accepts every builder
  | { compile(options?: any): CompiledGraph }
  | ((dependencies: GraphDependencies) => CompiledGraph | { readonly graph: CompiledGraph });

type CompiledOf<Source> = Source extends { compile(...args: never[]): infer Compiled }
  ? Compiled
  : Source extends (...args: never[]) => infer Result
    ? Result extends { readonly graph: infer Inner }
      ? Inner
      : Result
    : never;
/** What a graph takes. */
export type InputOf<Source> = CompiledOf<Source> extends { readonly "~InputType": infer Input } ? Input : unknown;
/** What a graph ends with. */
export type OutputOf<Source> = CompiledOf<Source> extends { readonly "~OutputType": infer Output } ? Output : unknown;

interface CommonDefinition<Source> {
  /** Unique among the registered graphs. */
  readonly name: string;
  readonly version: number;
  readonly graph: Source;
}

/** Ephemeral assistance. Types refuse commitments here. */
export interface ExitDefinition<Source> extends CommonDefinition<Source> {
  readonly durability: "exit";
  readonly commitments?: never;
  readonly lossWindow?: never;
  readonly onReject?: never;
  readonly onFailure?: never;
  readonly actorType?: ActorType;
}

/** Bounded background continuation. Types refuse commitments here. */
export interface AsyncDefinition<Source> extends CommonDefinition<Source> {
  readonly durability: "async";
  /** In words: what may be lost in a crash, and why that is acceptable. */
  readonly lossWindow: string;
  readonly commitments?: never;
  readonly onReject?: never;
  readonly onFailure?: never;
  readonly actorType?: ActorType;
}

/** The one durability under which a graph may commit and wait. */
export interface DurableDefinition<Source> extends CommonDefinition<Source> {
  readonly durability: "durable";
  readonly lossWindow?: never;
  /** Everything that this graph may propose. */
  readonly commitments?: readonly AnyCommitment[];
  /** Undo what the thread did when one of its requests is rejected or expires. */
  readonly onReject?: "compensate";
  /** Undo what the thread did when one of its effects fails for good. */
  readonly onFailure?: "compensate";
  /** Who proposes. Observers and recommenders never record an intent that runs without a person. Defaults to `automated_workflow`. */
  readonly actorType?: ActorType;
}

export type GraphDefinition<Source> = ExitDefinition<Source> | AsyncDefinition<Source> | DurableDefinition<Source>;

/** A LangGraph graph registered with a name, a version and a durability. Made by {@link defineGraph}. */
export interface Graph<Input = unknown, Output = unknown> {
  readonly name: string;
  readonly version: number;
  readonly durability: Durability;
  readonly lossWindow: string | null;
  readonly commitments: readonly AnyCommitment[];
  readonly onReject: "compensate" | null;
  readonly onFailure: "compensate" | null;
  readonly actorType: ActorType;
  readonly source: GraphSource;
  /** Types only. */
  readonly "~input"?: Input;
  /** Types only. */
  readonly "~output"?: Output;
}

/** A graph of any input and output, as registries hold it. */
// biome-ignore lint/suspicious/noExplicitAny: only `any` accepts every graph
export type AnyGraph = Graph<any, any>;

/**
 * Declares a graph and how its state must survive.
 * @throws DefinitionError when the declaration cannot be run safely: commitments outside `durable`,
 *   an `async` graph without a loss window, a subgraph with `checkpointer: false`, a cached node,
 *   a static breakpoint.
 * @example
 * const outreach = defineGraph({
 *   name: "outreach", version: 1, durability: "durable", commitments: [sendMail],
 *   graph: new StateGraph(State).addNode("send", send).addEdge(START, "send").addEdge("send", END),
 * });
 */
export function defineGraph<const Source extends GraphSource>(
  definition: GraphDefinition<Source>,
): Graph<InputOf<Source>, OutputOf<Source>> {
  if (typeof definition !== "object" || definition === null) {
    throw new DefinitionError("defineGraph() got no definition", {
      remedy: "Pass { name, version, durability, graph }.",
    });
  }
  const { name, version, durability, graph: source, actorType = "automated_workflow" } = definition;
  assertDeclared(definition as GraphDefinition<GraphSource>);
  const commitments = definition.commitments ?? [];
  const seen = new Set<string>();
  for (const commitment of commitments) {
    if (!seen.has(commitment.workflowKey)) {
      seen.add(commitment.workflowKey);
      continue;
    }
    throw refuse(name, `declares ${commitment.workflowKey} twice`, "List each commitment once.");
  }
  if (durability === "durable" && typeof source !== "function") assertPersistable(name, nodesOf(source));
  return Object.freeze({
    name,
    version,
    durability,
    lossWindow: definition.lossWindow ?? null,
    commitments,
    onReject: definition.onReject ?? null,
    onFailure: definition.onFailure ?? null,
    actorType,
    source: source as GraphSource,
  });
}

const COMPENSATE = "Say 'compensate', or leave it out.";
const ACTOR_TYPES: readonly ActorType[] = [
  "human",
  "observer_agent",
  "recommender_agent",
  "executor_system",
  "automated_workflow",
];

function assertDeclared(definition: GraphDefinition<GraphSource>): void {
  const { name, version, durability, graph: source } = definition;
  if (!isName(name)) {
    throw refuse(String(name), "has no proper name", "Use lower-case words joined by dots or hyphens.");
  }
  if (!Number.isInteger(version) || version < 1 || version >= 2 ** 31)
    throw refuse(name, "has no version", "Give it an integer from 1 on.");
  if (!["exit", "async", "durable"].includes(durability)) {
    throw refuse(name, "has no durability", "Say 'exit', 'async' or 'durable'.");
  }
  if (typeof source !== "function" && typeof source?.compile !== "function") {
    throw refuse(name, "has no graph", "Pass a StateGraph builder, or a factory ({ checkpointer }) => compiled graph.");
  }
  if (durability !== "durable" && declaresEffects(definition)) {
    throw refuse(
      name,
      `declares commitments under '${durability}'`,
      "Only a 'durable' graph may commit or compensate.",
    );
  }
  if (![undefined, "compensate"].includes(definition.onReject))
    throw refuse(name, "has an unknown onReject", COMPENSATE);
  if (![undefined, "compensate"].includes(definition.onFailure))
    throw refuse(name, "has an unknown onFailure", COMPENSATE);
  if (!ACTOR_TYPES.includes(definition.actorType ?? "automated_workflow")) {
    throw refuse(name, "has an unknown actorType", `Say one of ${ACTOR_TYPES.join(", ")}.`);
  }
  if (!isCommitments(definition.commitments ?? [])) {
    throw refuse(name, "lists something that is no commitment", "List what defineCommitment() returned.");
  }
  if (durability === "async" && !(typeof definition.lossWindow === "string" && definition.lossWindow.trim())) {
    throw refuse(name, "is async without a lossWindow", "Say in words what a crash may lose, or use 'durable'.");
  }
}

function isCommitments(commitments: unknown): boolean {
  return Array.isArray(commitments) && commitments.every((each) => typeof each?.workflowKey === "string");
}

/** Types refuse this already; JavaScript callers learn it here. */
function declaresEffects({ commitments, onReject, onFailure }: GraphDefinition<GraphSource>): boolean {
  return (commitments ?? []).length > 0 || onReject !== undefined || onFailure !== undefined;
}

/** A node as far as it can be seen from outside: in a builder's spec or in a compiled graph. */
interface VisibleNode {
  readonly runnable?: unknown;
  readonly bound?: unknown;
  readonly subgraphs?: readonly unknown[];
  readonly cachePolicy?: unknown;
}

function nodesOf(graph: unknown): [string, VisibleNode][] {
  return Object.entries((graph as { readonly nodes?: Record<string, VisibleNode> }).nodes ?? {});
}

/** @internal The same checks on a compiled graph, for what a factory hides until it is called. */
export function assertRunnable(graph: AnyGraph, compiled: CompiledGraph, checkpointer: unknown): void {
  const seen = compiled as { checkpointer?: unknown; interruptBefore?: unknown; interruptAfter?: unknown };
  const { name, durability } = graph;
  if (durability === "exit" && seen.checkpointer) {
    throw refuse(
      name,
      "is 'exit' yet compiled with a checkpointer",
      "Compile it with the one that the factory gets: none.",
    );
  }
  if (durability !== "exit" && seen.checkpointer !== checkpointer) {
    throw refuse(
      name,
      "was not compiled with the checkpointer that its factory got",
      "Pass ({ checkpointer }) on to compile(), entrypoint() or createAgent().",
    );
  }
  for (const point of [seen.interruptBefore, seen.interruptAfter]) {
    if (point === undefined || (Array.isArray(point) && point.length === 0)) continue;
    throw refuse(
      name,
      "has static breakpoints",
      "Use requestDecision() in a node: a breakpoint has no record that anybody could decide on.",
    );
  }
  if (durability === "durable") assertPersistable(name, nodesOf(compiled));
}

function assertPersistable(graph: string, nodes: readonly [string, VisibleNode][]): void {
  for (const [node, spec] of nodes) {
    if (spec.cachePolicy !== undefined && spec.cachePolicy !== false && spec.cachePolicy !== null) {
      throw refuse(
        graph,
        `caches its node '${node}'`,
        "A cache hit persists nothing, so waits in it would be lost: drop the cachePolicy.",
      );
    }
    for (const inner of [spec.runnable, spec.bound, ...(spec.subgraphs ?? [])]) {
      if ((inner as { readonly checkpointer?: unknown } | undefined)?.checkpointer === false) {
        throw refuse(
          graph,
          `holds the subgraph '${node}' compiled with checkpointer: false`,
          "Compile the subgraph without that option: it inherits the checkpointer.",
        );
      }
      if (isGraph(inner)) assertPersistable(graph, nodesOf(inner));
    }
  }
}

function isGraph(value: unknown): boolean {
  return typeof value === "object" && value !== null && "nodes" in value && "invoke" in value;
}

function refuse(graph: string, problem: string, remedy: string): DefinitionError {
  return new DefinitionError(`Graph '${graph}' ${problem}`, { remedy });
}
