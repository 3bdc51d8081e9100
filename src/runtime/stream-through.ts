import type { CompiledGraph } from "../graph.ts";

/** LangGraph stream modes, and who gets the chunks. */
export interface StreamSink {
  readonly modes: readonly string[];
  readonly subgraphs: boolean;
  readonly onChunk: (chunk: unknown) => void;
}

/** Passes LangGraph's chunks on, and keeps the last values of the graph itself: they are its output. */
export async function streamThrough(
  compiled: CompiledGraph,
  input: unknown,
  config: object,
  { modes, subgraphs, onChunk }: StreamSink,
): Promise<unknown> {
  let output: unknown;
  const streamMode = [...new Set([...modes, "values"])];
  const chunks = await compiled.stream(input, { ...config, streamMode, subgraphs });
  for await (const chunk of chunks as AsyncIterable<unknown[]>) {
    const [mode, data] = chunk.slice(-2);
    const ofGraphItself = !subgraphs || (chunk[0] as unknown[]).length === 0;
    if (mode === "values" && ofGraphItself) output = data;
    if (!modes.includes(mode as string)) continue;
    onChunk(modes.length > 1 ? chunk : subgraphs ? [chunk[0], data] : data);
  }
  return output;
}
