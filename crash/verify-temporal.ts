import { Client, Connection } from "@temporalio/client";
import type { Surroundings } from "./life.ts";

/**
 * Ended by word from outside: whoever brings it also tells the workflow. One that is killed in between
 * leaves a workflow that looks at its row by itself only once an hour: longer than a run.
 */
const TOLD: readonly string[] = ["keyed.outside@1", "once.blind@1"];

/** The workflows that still run, by their intents' ids; those left out that wait to be told. */
export async function openWorkflows({ temporalAddress }: Surroundings): Promise<string[]> {
  if (temporalAddress === undefined) return [];
  const connection = await Connection.connect({ address: temporalAddress });
  try {
    const { workflow } = new Client({ connection });
    const open: string[] = [];
    for await (const { workflowId, type } of workflow.list({ query: "ExecutionStatus = 'Running'" })) {
      if (!TOLD.includes(type)) open.push(workflowId);
    }
    return open;
  } finally {
    await connection.close();
  }
}
