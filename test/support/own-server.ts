import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chownSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { freePort, importEmbeddedPostgres } from "./postgres.ts";

/** A Postgres of a test's own, which may be stopped, started again and set up badly. */
export interface OwnServer {
  readonly url: string;
  readonly port: number;
  start(): Promise<void>;
  /** As an administrator stops it: every connection is ended, what was committed stands. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function ownServer(...flags: readonly string[]): Promise<OwnServer> {
  const EmbeddedPostgres = await importEmbeddedPostgres();
  const databaseDir = mkdtempSync(join(tmpdir(), "countersign-own-"));
  const port = await freePort();
  const server = new EmbeddedPostgres({
    databaseDir,
    port,
    user: "postgres",
    password: "postgres",
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    postgresFlags: flags.flatMap((flag) => ["-c", flag]),
    onLog: () => {},
    onError: () => {},
  });
  await server.initialise();
  await server.start();
  let running = true;
  const stop = async (): Promise<void> => {
    if (running) await server.stop();
    running = false;
  };
  return {
    url: `postgres://postgres:postgres@127.0.0.1:${port}/postgres`,
    port,
    stop,
    async start() {
      await server.start();
      running = true;
    },
    async [Symbol.asyncDispose]() {
      await stop();
      rmSync(databaseDir, { recursive: true, force: true });
    },
  };
}

const PGBOUNCER = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];

/** The real pgbouncer in transaction mode before a database: a connection is somebody else's after each transaction. */
export interface Bouncer extends AsyncDisposable {
  readonly url: string;
}

/** @throws Error where pgbouncer is not installed: what is not tested is not promised. */
export async function bouncer(target: string): Promise<Bouncer> {
  const program = PGBOUNCER.find(existsSync);
  if (program === undefined) {
    throw new Error(
      "pgbouncer is not installed: as root, apt-get update && apt-get install --no-install-recommends pgbouncer",
    );
  }
  const { hostname, port: serverPort, username, password, pathname } = new URL(target);
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), "countersign-bouncer-"));
  const config = join(folder, "pgbouncer.ini");
  writeFileSync(
    config,
    `[databases]
* = host=${hostname} port=${serverPort} user=${username} password=${password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
${tracksStatements(program) ? "max_prepared_statements = 0" : ""}
`,
  );
  // It refuses to run as root.
  const nobody = userInfo().uid === 0 ? { uid: 65_534, gid: 65_534 } : {};
  if (nobody.uid !== undefined) for (const path of [folder, config]) chownSync(path, nobody.uid, nobody.gid);
  const child = spawn(program, [config], { ...nobody, stdio: "ignore" });
  const ended = once(child, "exit");
  await Promise.race([
    untilOpen(port),
    ended.then(([code]) => Promise.reject(new Error(`pgbouncer ended with ${code}`))),
  ]);
  return {
    url: `postgres://${username}:${password}@127.0.0.1:${port}${pathname}`,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** From 1.21 on it can follow prepared statements, which a user may have switched off; before, it never does. */
function tracksStatements(program: string): boolean {
  const [, minor] = execFileSync(program, ["--version"], { encoding: "utf8" }).match(/PgBouncer 1\.(\d+)/) ?? [];
  return Number(minor) >= 21;
}

async function untilOpen(port: number): Promise<void> {
  for (;;) {
    const socket = connect(port, "127.0.0.1");
    const opened = await once(socket, "connect").then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (opened) return;
    await delay(20);
  }
}
