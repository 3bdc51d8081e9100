import { spawnSync } from "node:child_process";
import { mkdirSync, renameSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { CACHED_CLI, findCli, findGo } from "./cli.ts";

/*
 * `npm run temporal:install`: makes sure that there is a Temporal server to test against. Builds the
 * CLI from the module that go.mod and go.sum pin, once, into the user's cache: 2 to 3 minutes.
 */
const present = process.env.TEMPORAL_ADDRESS || findCli();
const go = findGo();
if (present) {
  console.log(`Temporal: ${present}`);
} else if (go === undefined) {
  console.log("Temporal: no Go toolchain here to build its CLI with; the SDK will download one when a test starts it.");
} else {
  console.log(`Temporal: building its CLI into ${CACHED_CLI}, once; this takes some minutes …`);
  build(go);
}

function build(toolchain: string): void {
  mkdirSync(dirname(CACHED_CLI), { recursive: true });
  const unfinished = `${CACHED_CLI}.${process.pid}`;
  const { status } = spawnSync(toolchain, ["build", "-o", unfinished, "github.com/temporalio/cli/cmd/temporal"], {
    cwd: fileURLToPath(new URL(".", import.meta.url)),
    env: { ...process.env, CGO_ENABLED: "0" },
    stdio: "inherit",
  });
  // Renamed when it is whole: two at once, or one that is interrupted, leave no half of a binary.
  if (status === 0) renameSync(unfinished, CACHED_CLI);
  else process.exitCode = 1;
}
