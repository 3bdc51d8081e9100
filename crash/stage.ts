import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BackendName } from "./backends.ts";
import { type Bundle, bundle } from "./bundle.ts";
import { startChild } from "./child.ts";
import { type DatabaseServer, startDatabaseServer } from "./database-server.ts";
import type { Surroundings } from "./life.ts";
import type { Sabotage } from "./sabotages.ts";
import { startTemporalServer, type TemporalServer } from "./temporal-server.ts";

/** What a run takes place on: a database, a provider, and the scripts of its processes. */
export interface Stage extends AsyncDisposable {
  readonly surroundings: Surroundings;
  readonly bundle: Bundle;
  /** Of the run's own; `undefined` where a URL was given. */
  readonly server: DatabaseServer | undefined;
  /** Of the run's own, where Temporal is the backend. */
  readonly temporal: TemporalServer | undefined;
}

export interface StageOptions {
  readonly seed: number;
  /** A URL of a database to use, or a server of the run's own. */
  readonly database: string | "embedded";
  /** What carries the intents out. Defaults to `postgres`. */
  readonly backend?: BackendName;
  readonly sabotage?: Sabotage;
}

export async function setStage({ seed, database, backend = "postgres", sabotage }: StageOptions): Promise<Stage> {
  const bundled = await bundle(backend, sabotage);
  const server = database === "embedded" ? await startDatabaseServer() : undefined;
  const temporal = backend === "temporal" ? await startTemporalServer() : undefined;
  const dir = mkdtempSync(join(tmpdir(), "countersign-crash-run-"));
  const provider = startChild(bundled.provider, { dir, seed, slowMs: sabotage?.focus?.providerMs ?? 0 });
  const { url: providerUrl } = JSON.parse(await provider.firstLine) as { url: string };
  const schema = `crash_${seed}_${Date.now().toString(36)}`;
  return {
    surroundings: {
      ...{ databaseUrl: server?.url ?? database, schema, providerUrl, dir },
      ...(temporal === undefined ? {} : { temporalAddress: temporal.address }),
    },
    bundle: bundled,
    server,
    temporal,
    async [Symbol.asyncDispose]() {
      provider.process.kill();
      await temporal?.stop();
      await server?.stop();
    },
  };
}
