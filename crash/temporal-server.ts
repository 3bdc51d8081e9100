import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findCli } from "../dev/temporal-server/cli.ts";
import { startServer } from "../dev/temporal-server/start.ts";

/** A Temporal server of a run's own, which can be killed and comes back with what it had stored. */
export interface TemporalServer {
  readonly address: string;
  /** Ends it with SIGKILL and starts it again, on the same port and with the same file. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

/** @throws Error where there is no CLI: a server at an address, or one that the SDK downloads, cannot be killed. */
export async function startTemporalServer(): Promise<TemporalServer> {
  const cli = findCli();
  if (cli === undefined) throw new Error("A run kills its Temporal server: get one with `npm run temporal:install`.");
  const folder = mkdtempSync(join(tmpdir(), "countersign-crash-temporal-"));
  const dbFile = join(folder, "temporal.db");
  let server = await startServer(cli, { dbFile });
  const { address, port } = server;
  return {
    address,
    async kill() {
      await server.stop();
      server = await startServer(cli, { dbFile, port });
    },
    async stop() {
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
