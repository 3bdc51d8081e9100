import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build, type Plugin } from "esbuild";
import { bundleWorkflows, PREBUILT } from "../src/backends/temporal/workflow-bundle.ts";
import type { BackendName } from "./backends.ts";
import type { Sabotage } from "./sabotages.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const OUT = join(ROOT, "node_modules", ".cache", "countersign-crash");
const MARK = /^\s*\/\/ failpoint: ([a-z.-]+)$/gm;

export interface Bundle {
  /** The script of a process of a run. */
  readonly process: string;
  readonly provider: string;
  /** The failpoints that the sources of this backend's processes name. */
  readonly failpoints: readonly string[];
}

/**
 * Bundles the processes of a run from our sources. On the way each comment `// failpoint: name` becomes
 * a call, and a sabotage changes the line that it is about: neither leaves a trace in the package.
 */
export async function bundle(backend: BackendName, sabotage?: Sabotage): Promise<Bundle> {
  const failpoints = new Set<string>();
  const outdir = join(OUT, backend, sabotage?.name ?? "whole");
  mkdirSync(outdir, { recursive: true });
  await build({
    absWorkingDir: ROOT,
    entryPoints: [
      { in: `crash/process-${backend}.ts`, out: "process" },
      { in: "crash/provider.ts", out: "provider" },
    ],
    outdir,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm",
    target: "node20",
    sourcemap: "inline",
    logLevel: "error",
    plugins: [countersignByName(), sources(failpoints, sabotage)],
  });
  // What runs in Temporal's sandbox ships prebuilt, beside the code that loads it.
  if (backend === "temporal") writeFileSync(join(outdir, PREBUILT), await bundleWorkflows());
  const process = join(outdir, "process.mjs");
  return { process, provider: join(outdir, "provider.mjs"), failpoints: [...failpoints].sort() };
}

/** The package by its name is its sources. */
function countersignByName(): Plugin {
  const entries: Readonly<Record<string, string>> = {
    countersign: "src/index.ts",
    "countersign/postgres": "src/backends/postgres/index.ts",
    "countersign/temporal": "src/backends/temporal/index.ts",
  };
  return {
    name: "countersign",
    setup(on) {
      on.onResolve({ filter: /^countersign(\/|$)/ }, ({ path }) => {
        const entry = entries[path];
        return entry === undefined ? { errors: [{ text: `no entry ${path}` }] } : { path: join(ROOT, entry) };
      });
    },
  };
}

function sources(failpoints: Set<string>, sabotage: Sabotage | undefined): Plugin {
  const broken = new Set<string>();
  return {
    name: "sources",
    setup(on) {
      on.onLoad({ filter: /\/(src|checkpointers)\/.*\.ts$/ }, ({ path }) => {
        const file = relative(ROOT, path);
        let text = readFileSync(path, "utf8");
        for (const change of sabotage?.changes.filter((each) => each.file === file) ?? []) {
          if (text.split(change.find).length !== 2) {
            throw new Error(`sabotage '${sabotage?.name}': ${file} no longer says it once: ${change.find}`);
          }
          text = text.replace(change.find, () => change.replace);
          broken.add(change.file);
        }
        const contents = text.replace(MARK, (_mark, name: string) => {
          failpoints.add(name);
          return `(globalThis as unknown as { failpoint(name: string): void }).failpoint("${name}");`;
        });
        return { contents, loader: "ts" };
      });
      on.onEnd(() => {
        const missed = sabotage?.changes.find((change) => !broken.has(change.file));
        if (missed !== undefined) throw new Error(`sabotage '${sabotage?.name}': ${missed.file} is not bundled`);
      });
    },
  };
}
