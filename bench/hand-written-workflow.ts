import { proxyActivities } from "@temporalio/workflow";
import type { HandWrittenActivities } from "./hand-written.ts";

const { claim, execute, settle } = proxyActivities<HandWrittenActivities>({ startToCloseTimeout: "30 s" });

/** What one would write without us: claim the row, do it, write down what came of it. */
export async function handWritten(id: string): Promise<void> {
  const token = await claim(id);
  const ref = await execute(id);
  await settle(id, token, ref);
}
