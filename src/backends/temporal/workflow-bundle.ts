import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { bundleWorkflowCode, DefaultLogger } from "@temporalio/worker";
import type { AnyCommitment } from "../../commitment.ts";
import { workflowType } from "./protocol.ts";

/** The SDK that runs the bundle, and must be the one whose workflow library is in it. */
const { version: SDK_VERSION } = createRequire(import.meta.url)("@temporalio/worker/package.json") as {
  readonly version: string;
};

let bundled: Promise<string> | undefined;

/**
 * The code of a worker's workflows: our one workflow function, exported under the pinned type of each
 * commitment that the worker serves and under no other name. There is no default export, so that a
 * workflow of any other type fails its task and never runs.
 *
 * The function itself ships bundled with the package, for the SDK version that we build with; for
 * another one it is bundled when the worker starts, which takes about a second. The names are added
 * to that code here: users bundle nothing.
 */
export async function workflowCode(commitments: Iterable<AnyCommitment>): Promise<string> {
  const prebuilt = new URL(PREBUILT, import.meta.url);
  bundled ??= existsSync(prebuilt) ? readFile(prebuilt, "utf8") : bundleWorkflows();
  bundled.catch(() => {
    bundled = undefined;
  });
  return `${await bundled}\n${register(typesOf(commitments))}\n${NO_SOURCE_MAP}\n`;
}

/** A worker insists on a source map; the real one is ten times the code. Put together so that no tool takes it for ours. */
const NO_SOURCE_MAP = [
  "//# source",
  "MappingURL=data:application/json;base64,",
  Buffer.from('{"version":3,"file":"countersign-workflows.js","sources":[],"names":[],"mappings":""}').toString(
    "base64",
  ),
].join("");

/** What the build calls the bundle, beside this file. */
export const PREBUILT: string = `workflows-${SDK_VERSION}.bundle`;

/** Bundles the workflow for the SDK that is installed. */
export async function bundleWorkflows(): Promise<string> {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  const { code } = await bundleWorkflowCode({
    workflowsPath: fileURLToPath(new URL(`workflows.${extension}`, import.meta.url)),
    logger: new DefaultLogger("WARN"),
  });
  return code.slice(0, code.lastIndexOf("//# source"));
}

/** Every workflow type of these commitments. */
export function typesOf(commitments: Iterable<AnyCommitment>): string[] {
  return [...commitments].flatMap(({ workflowKey, handlers }) => [
    workflowType(workflowKey, "effect"),
    ...(handlers.compensate === undefined ? [] : [workflowType(workflowKey, "compensation")]),
  ]);
}

/** The bundle's `importWorkflows` is what a worker looks a type up in. */
function register(types: readonly string[]): string {
  return `{
  const { importWorkflows } = __TEMPORAL__;
  const types = ${JSON.stringify(types)};
  __TEMPORAL__.importWorkflows = () => {
    const { carryOut } = importWorkflows();
    return types.reduce((all, type) => Object.assign(all, { [type]: carryOut }), Object.create(null));
  };
}`;
}
