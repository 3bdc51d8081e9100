import { accessSync, constants, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";

/** The version that `go.mod` pins. */
const VERSION = /temporalio\/cli v([\d.]+)/.exec(readFileSync(new URL("go.mod", import.meta.url), "utf8"))?.[1];

/** Where `npm run temporal:install` puts what it builds: outside the tree, one file per version. */
export const CACHED_CLI: string = join(
  process.env.XDG_CACHE_HOME || join(homedir(), ".cache"),
  "countersign",
  "temporal",
  `temporal-${VERSION}`,
);

/** A `temporal` binary of this machine: the one that is named, one on PATH, or the one in the cache. */
export function findCli(): string | undefined {
  const named = process.env.TEMPORAL_CLI_PATH;
  if (named) return named;
  return [...onPath("temporal"), CACHED_CLI].find(isExecutable);
}

/** The Go toolchain, which builds the CLI from its pinned module. */
export function findGo(): string | undefined {
  return [...onPath("go"), "/usr/local/go/bin/go"].find(isExecutable);
}

function onPath(name: string): string[] {
  return (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, name));
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
