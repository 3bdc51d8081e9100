import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { ConformanceChild } from "../../src/testing/index.ts";

const script = fileURLToPath(new URL("conformance-child.ts", import.meta.url));

/** Starts the process that a case of the conformance suite kills. */
export const spawnConformance =
  (url: string, address?: string) =>
  (job: string): ConformanceChild =>
    spawn(process.execPath, ["--import", "tsx", script, job, url, ...(address === undefined ? [] : [address])], {
      stdio: ["ignore", "pipe", "inherit"],
    });
