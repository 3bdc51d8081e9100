import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { freePort, importEmbeddedPostgres } from "../test/support/postgres.ts";

/** A Postgres of a run's own, which can be stopped as a power cut would: without a checkpoint. */
export interface DatabaseServer {
  readonly url: string;
  /** Stops it with `immediate` and starts it again, which recovers from its log. */
  kill(): Promise<void>;
  stop(): Promise<void>;
}

export async function startDatabaseServer(): Promise<DatabaseServer> {
  const EmbeddedPostgres = await importEmbeddedPostgres();
  const databaseDir = mkdtempSync(join(tmpdir(), "countersign-crash-"));
  const port = await freePort();
  const server = new EmbeddedPostgres({
    databaseDir,
    port,
    user: "postgres",
    password: "postgres",
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    postgresFlags: ["-c", "max_connections=300", "-c", "autovacuum_naptime=5"],
    onLog: () => {},
    onError: () => {},
  });
  await server.initialise();
  await server.start();
  const pidFile = join(databaseDir, "postmaster.pid");
  return {
    url: `postgres://postgres:postgres@127.0.0.1:${port}/postgres`,
    async kill() {
      const pid = Number(readFileSync(pidFile, "utf8").split("\n")[0]);
      // SIGQUIT is `pg_ctl stop -m immediate`.
      process.kill(pid, "SIGQUIT");
      while (existsSync(pidFile) && isAlive(pid)) await delay(10);
      await server.start();
    },
    async stop() {
      await server.stop();
      rmSync(databaseDir, { recursive: true, force: true });
    },
  };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
