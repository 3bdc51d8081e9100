import type { BaseStore } from "@langchain/langgraph-checkpoint";
import type pg from "pg";
import type { DurableBackend } from "../backend.ts";
import type { Database, DatabaseSource } from "../database/client.ts";
import { assertSchemaName, DEFAULT_SCHEMA } from "../database/migrate.ts";
import { postgresDatabase } from "../database/postgres.ts";
import { OptionError } from "../errors.ts";
import type { AnyGraph } from "../graph.ts";

/** What `countersign()` takes. */
export interface CountersignOptions {
  /** A Postgres URL, an existing `pg.Pool` (which stays the caller's), or `pglite(…)`. */
  readonly database: string | pg.Pool | DatabaseSource;
  /** Every graph that this process starts or drives. Threads of others are left to other processes. */
  readonly graphs: readonly AnyGraph[];
  /** What carries intents out: `postgres()`. */
  readonly backend: DurableBackend;
  /** The Postgres schema of all tables. Defaults to `countersign`. */
  readonly schema?: string;
  /** Named prepared statements; switch off behind pgbouncer in transaction mode. Defaults to true. */
  readonly prepare?: boolean;
  /** How long a lease lasts without a heartbeat: the time after which another process takes over. Milliseconds, defaults to 30 000. */
  readonly leaseMs?: number;
  /** How often to look without a notification. Milliseconds, defaults to 1 000. */
  readonly pollIntervalMs?: number;
  /** Threads that this process drives at once. Defaults to 16. */
  readonly maxConcurrentDrives?: number;
  /** LangGraph's long-term store, handed to each graph when it is compiled. */
  readonly store?: BaseStore;
  /** Gets what no caller can be told of: a lost connection, a lease that moved on, a diverging node. Defaults to a line on stderr. */
  readonly onError?: (error: unknown) => void;
}

/** The options with their defaults, each checked. */
export interface Settings {
  readonly schema: string;
  readonly prepare: boolean;
  readonly leaseMs: number;
  readonly pollIntervalMs: number;
  readonly maxConcurrentDrives: number;
  readonly onError: (error: unknown) => void;
}

const KNOWN = [
  "database",
  "graphs",
  "backend",
  "schema",
  "prepare",
  "leaseMs",
  "pollIntervalMs",
  "maxConcurrentDrives",
  "store",
  "onError",
] as const satisfies readonly (keyof CountersignOptions)[];

/** @throws OptionError for an unknown option or one that makes no sense, before anything is opened. */
export function settingsOf(options: CountersignOptions): Settings {
  for (const key of Object.keys(options)) {
    if ((KNOWN as readonly string[]).includes(key)) continue;
    throw new OptionError(`countersign() does not know the option '${key}'`, {
      remedy: `It knows ${KNOWN.join(", ")}.`,
    });
  }
  if (!Array.isArray(options.graphs))
    throw new OptionError("countersign() got no graphs", { remedy: "Pass graphs: [ … ]." });
  if (typeof options.backend?.open !== "function") {
    throw new OptionError("countersign() got no backend", {
      remedy: 'Pass backend: postgres(), from "countersign/postgres".',
    });
  }
  return {
    schema: assertSchemaName(options.schema ?? DEFAULT_SCHEMA),
    prepare: options.prepare ?? true,
    leaseMs: whole(options.leaseMs, 30_000, "leaseMs", 100),
    pollIntervalMs: whole(options.pollIntervalMs, 1_000, "pollIntervalMs", 10),
    maxConcurrentDrives: whole(options.maxConcurrentDrives, 16, "maxConcurrentDrives", 1),
    onError:
      options.onError ?? ((error) => console.error("countersign:", error instanceof Error ? error.message : error)),
  };
}

function whole(value: number | undefined, otherwise: number, option: string, least: number): number {
  if (value === undefined) return otherwise;
  if (Number.isInteger(value) && value >= least && value <= 24 * 3_600_000) return value;
  throw new OptionError(`countersign() got a ${option} that makes no sense`, {
    facts: { [option]: String(value) },
    remedy: `Give a whole number from ${least} to ${24 * 3_600_000}.`,
  });
}

export async function openDatabase(
  source: CountersignOptions["database"],
  { schema, prepare }: Settings,
): Promise<Database> {
  if (typeof source === "string") return postgresDatabase(source, { schema, prepare });
  if (typeof source === "object" && source !== null) {
    if ("open" in source && typeof source.open === "function") return source.open(schema);
    if ("connect" in source && "query" in source) return postgresDatabase(source, { schema, prepare });
  }
  throw new OptionError("countersign() got no database", {
    remedy: "Pass a Postgres URL, a pg.Pool, or pglite(folder).",
  });
}
