import type { BaseCheckpointSaver, BaseStore } from "@langchain/langgraph-checkpoint";
import type { AnyCommitment } from "../commitment.ts";
import { DefinitionError, ThreadError } from "../errors.ts";
import { type AnyGraph, assertRunnable, type CompiledGraph } from "../graph.ts";
import { workflowKeyOf } from "../intent.ts";

/** A graph with what it was compiled to. */
export interface RegisteredGraph {
  readonly graph: AnyGraph;
  readonly compiled: CompiledGraph;
}

/** The graphs and commitments of one `countersign()`, each under its name and version. */
export class Registry {
  readonly #graphs = new Map<string, RegisteredGraph>();
  readonly commitments: ReadonlyMap<string, AnyCommitment>;

  /** @throws DefinitionError for two graphs or two commitments under one name and version. */
  constructor(
    graphs: readonly AnyGraph[],
    { checkpointer, store }: { readonly checkpointer: BaseCheckpointSaver; readonly store: BaseStore | undefined },
  ) {
    const commitments = new Map<string, AnyCommitment>();
    for (const graph of graphs) {
      const key = workflowKeyOf(graph.name, graph.version);
      if (this.#graphs.has(key)) throw twice(`The graph '${key}'`);
      this.#graphs.set(key, { graph, compiled: compile(graph, checkpointer, store) });
      for (const commitment of graph.commitments) {
        const known = commitments.get(commitment.workflowKey);
        if (known !== undefined && known !== commitment) throw twice(`The commitment '${commitment.workflowKey}'`);
        commitments.set(commitment.workflowKey, commitment);
      }
    }
    this.commitments = commitments;
  }

  /** The durable and async graphs that this process can drive, as `name@version`. */
  get drivable(): string[] {
    return [...this.#graphs].filter(([, { graph }]) => graph.durability !== "exit").map(([key]) => key);
  }

  /** @throws ThreadError when the graph was not registered here. */
  graph(name: string, version: number): RegisteredGraph {
    const found = this.#graphs.get(workflowKeyOf(name, version));
    if (found !== undefined) return found;
    throw new ThreadError("THREAD_STATE", "The graph is not registered in this process", {
      facts: { graph: workflowKeyOf(name, version) },
      remedy: "List it in countersign({ graphs: [...] }).",
    });
  }
}

function compile(graph: AnyGraph, checkpointer: BaseCheckpointSaver, store: BaseStore | undefined): CompiledGraph {
  const saver = graph.durability === "exit" ? undefined : checkpointer;
  const dependencies = { checkpointer: saver, store };
  const { source } = graph;
  const made = typeof source === "function" ? source(dependencies) : source.compile(dependencies);
  const compiled = "graph" in made ? made.graph : made;
  assertRunnable(graph, compiled, saver);
  return compiled;
}

function twice(subject: string): DefinitionError {
  return new DefinitionError(`${subject} is registered twice`, {
    remedy: "A name and a version stand for one declaration: give the changed one a new version.",
  });
}
