import { proxyActivities } from "@temporalio/workflow";
import { carryOut, type IntentEnd, type IntentRun } from "../../src/backends/temporal/workflows.ts";

export { carryOut };

const { announce } = proxyActivities<{ announce(what: string): Promise<void> }>({ startToCloseTimeout: "10 s" });

/** A workflow of the application's own, which owns a commitment: something before, and something after. */
export async function announced(run: IntentRun): Promise<IntentEnd> {
  await announce("begins");
  const end = await carryOut(run);
  await announce(`ends as ${end.status}`);
  return end;
}
