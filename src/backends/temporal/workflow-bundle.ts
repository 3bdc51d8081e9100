import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { bundleWorkflowCode, DefaultLogger } from "@temporalio/worker";

/** The SDK that runs the bundle, and must be the one whose workflow library is in it. */
const { version: SDK_VERSION } = createRequire(import.meta.url)("@temporalio/worker/package.json") as {
  readonly version: string;
};

let shipped: Promise<string> | undefined;

/**
 * The code of a worker's workflows. Each of these types is exported under its own name, and nothing
 * else is: no default, nothing inherited, so that a workflow of any other type fails its task and
 * never runs.
 *
 * The function behind the pinned types ships bundled with the package, for the SDK version that we
 * build with; for another one it is bundled when the worker starts, which takes about a second. The
 * names are added to that code here: users bundle nothing, unless they bring workflows of their own.
 * @param types the registered type, and the exported function behind it.
 * @param path a module of one's own workflows, bundled in place of ours.
 */
export async function workflowCode(types: ReadonlyMap<string, string>, path?: string): Promise<string> {
  const code = path === undefined ? await shippedWorkflows() : await bundle(path);
  return `${code}\n${register(types)}\n${NO_SOURCE_MAP}\n`;
}

async function shippedWorkflows(): Promise<string> {
  const prebuilt = new URL(PREBUILT, import.meta.url);
  shipped ??= existsSync(prebuilt) ? readFile(prebuilt, "utf8") : bundleWorkflows();
  shipped.catch(() => {
    shipped = undefined;
  });
  return shipped;
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

/** Bundles our workflows for the SDK that is installed. */
export function bundleWorkflows(): Promise<string> {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return bundle(fileURLToPath(new URL(`workflows.${extension}`, import.meta.url)));
}

async function bundle(workflowsPath: string): Promise<string> {
  const { code } = await bundleWorkflowCode({ workflowsPath, logger: new DefaultLogger("WARN") });
  return code.slice(0, code.lastIndexOf("//# source"));
}

/** The bundle's `importWorkflows` is what a worker looks a type up in. */
function register(types: ReadonlyMap<string, string>): string {
  return `{
  const { importWorkflows } = __TEMPORAL__;
  const types = ${JSON.stringify([...types])};
  __TEMPORAL__.importWorkflows = () => {
    const exported = importWorkflows();
    return types.reduce((all, [type, name]) => Object.assign(all, { [type]: exported[name] }), Object.create(null));
  };
}`;
}
