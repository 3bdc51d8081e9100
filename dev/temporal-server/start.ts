import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { Connection } from "@temporalio/client";
import { Runtime } from "@temporalio/worker";
import { freePort } from "../../test/support/postgres.ts";
import { findCli } from "./cli.ts";

/** A Temporal server for development and tests. */
export interface TemporalServer {
  readonly address: string;
  /** Ends the server if we started it; in memory, everything is gone then. */
  stop(): Promise<void>;
}

/**
 * Provides a Temporal server: the one at `TEMPORAL_ADDRESS`; else one of its own from the CLI at
 * `TEMPORAL_CLI_PATH`, on PATH or in the user's cache; else one that the SDK downloads.
 * @throws Error that says how to get one.
 */
export async function startTemporal(): Promise<TemporalServer> {
  const address = process.env.TEMPORAL_ADDRESS;
  if (address) return { address, stop: async () => {} };
  const cli = findCli();
  return cli === undefined ? downloadServer() : startServer(cli);
}

/** Keeps its state in `dbFile`, so that it can be killed and started again on the same port. */
export async function startServer(
  cli: string,
  { port, dbFile }: { readonly port?: number; readonly dbFile?: string } = {},
): Promise<TemporalServer & { readonly port: number; readonly child: ChildProcess }> {
  const listening = port ?? (await freePort());
  const args = ["server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", String(listening)];
  const child = spawn(
    cli,
    [...args, "--log-level", "never", ...(dbFile === undefined ? [] : ["--db-filename", dbFile])],
    {
      stdio: ["ignore", "ignore", "inherit"],
    },
  );
  const ended = once(child, "exit");
  // A process that ends without having stopped its server must not leave it behind.
  const orphaned = () => child.kill("SIGKILL");
  process.once("exit", orphaned);
  const address = `127.0.0.1:${listening}`;
  await Promise.race([
    Connection.connect({ address, connectTimeout: 30_000 }).then((connection) => connection.close()),
    ended.then(([code]) => Promise.reject(new Error(`${cli} server start-dev ended with ${String(code)}`))),
  ]);
  return {
    address,
    port: listening,
    child,
    async stop() {
      process.off("exit", orphaned);
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** The SDK brings its own downloader, which needs the open internet. */
async function downloadServer(): Promise<TemporalServer> {
  const runtime = Runtime.instance();
  const port = await freePort();
  try {
    const server = await runtime.createEphemeralServer({
      type: "dev-server",
      exe: {
        type: "cached-download",
        downloadDir: null,
        version: "default",
        ttl: 0,
        sdkName: "sdk-typescript",
        sdkVersion: "1.24.0",
      },
      namespace: "default",
      ip: "127.0.0.1",
      port,
      uiPort: null,
      dbFilename: null,
      ui: false,
      log: { format: "pretty", level: "error" },
      extraArgs: [],
    });
    return { address: `127.0.0.1:${port}`, stop: () => runtime.shutdownEphemeralServer(server) };
  } catch (cause) {
    throw new Error(
      "There is no Temporal server for this test. Set TEMPORAL_ADDRESS to one that runs, or TEMPORAL_CLI_PATH to a " +
        "`temporal` binary; or install Go and run `npm run temporal:install`. The SDK could not download one either.",
      { cause },
    );
  }
}
