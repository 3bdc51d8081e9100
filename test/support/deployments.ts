import { Client, Connection } from "@temporalio/client";
import { afterAll, vi } from "vitest";

/** `PINNED_OVERRIDE_BEHAVIOR_PINNED` of Temporal's API, whose package the client does not export. */
const PINNED = 1;

/** What the runbook of docs/temporal.md has an operator do with the command line. */
export async function deploymentOperator(address: string, deploymentName: string) {
  const connection = await Connection.connect({ address });
  afterAll(() => connection.close());
  const { workflowService } = new Client({ connection });
  const namespace = "default";
  return {
    /** `temporal worker deployment set-current-version`; a version is known once one of its workers has polled. */
    makeCurrent: (buildId: string) =>
      vi.waitFor(
        () =>
          workflowService.setWorkerDeploymentCurrentVersion({
            ...{ namespace, deploymentName, buildId, identity: "test" },
            version: `${deploymentName}.${buildId}`,
          }),
        { timeout: 20_000, interval: 100 },
      ),
    /** `temporal workflow update-options --versioning-override-behavior pinned` */
    moveTo: (buildId: string, workflowId: string) =>
      workflowService.updateWorkflowExecutionOptions({
        namespace,
        workflowExecution: { workflowId },
        workflowExecutionOptions: {
          versioningOverride: {
            pinned: { version: { deploymentName, buildId }, behavior: PINNED },
          },
        },
        updateMask: { paths: ["versioning_override"] },
      }),
  };
}
