import type { BaseStore } from "@langchain/langgraph-checkpoint";
import type pg from "pg";
import { z } from "zod";
import { checker, text } from "../arguments.ts";
import type { DurableBackend } from "../backend.ts";
import type { Database, DatabaseSource } from "../database/client.ts";
import { assertSchemaName, DEFAULT_SCHEMA } from "../database/migrate.ts";
import { postgresDatabase } from "../database/postgres.ts";
import { OptionError } from "../errors.ts";
import type { AnyGraph } from "../graph.ts";
import { DEFAULT_MAX_PAYLOAD_BYTES } from "../json.ts";

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
  /**
   * Where to LISTEN, if not at `database`: straight to the server, where `database` goes through pgbouncer in
   * transaction mode, through which no notification comes. Without it polling alone carries the work there.
   */
  readonly listenUrl?: string;
  /** How long a lease lasts without a heartbeat: the time after which another process takes over. Milliseconds, defaults to 30 000. */
  readonly leaseMs?: number;
  /** How often to look without a notification. Milliseconds, defaults to 1 000. */
  readonly pollIntervalMs?: number;
  /** Threads that this process drives at once. Defaults to 16. */
  readonly maxConcurrentDrives?: number;
  /**
   * The largest payload, evidence, edit, output, receipt or event, each measured as canonical JSON. Rows of
   * this size are read with every drive, list and claim: raise it with care. Bytes, defaults to 1 MiB.
   */
  readonly maxPayloadBytes?: number;
  /** LangGraph's long-term store, handed to each graph when it is compiled. */
  readonly store?: BaseStore;
  /** Gets what no caller can be told of: a lost connection, a lease that moved on, a diverging node. Defaults to a line on stderr. */
  readonly onError?: (error: unknown) => void;
}

/** The options with their defaults, each checked. */
export interface Settings {
  readonly schema: string;
  readonly prepare: boolean;
  readonly listenUrl: string | undefined;
  readonly leaseMs: number;
  readonly pollIntervalMs: number;
  readonly maxConcurrentDrives: number;
  readonly maxPayloadBytes: number;
  readonly onError: (error: unknown) => void;
}

const whole = (least: number, most: number): z.ZodType<number | undefined> => z.int().min(least).max(most).optional();
const callable = (value: unknown): boolean => typeof value === "function";
const DAY_MS = 24 * 3_600_000;

const checkOptions = checker("countersign()", {
  database: z.union([z.string().min(1), z.looseObject({})]),
  graphs: z.array(z.looseObject({ name: text, version: z.int(), source: z.unknown() })),
  backend: z.looseObject({ name: text, open: z.custom(callable, "Pass backend: postgres()") }),
  schema: z.string().optional(),
  prepare: z.boolean().optional(),
  listenUrl: z.string().min(1).optional(),
  leaseMs: whole(100, DAY_MS),
  pollIntervalMs: whole(10, DAY_MS),
  maxConcurrentDrives: whole(1, 100_000),
  // Postgres takes jsonb up to 256 MiB, and a batch is one statement.
  maxPayloadBytes: whole(1, 64 * 1024 * 1024),
  store: z.looseObject({}).optional(),
  onError: z.custom(callable, "Pass a function").optional(),
} satisfies Record<keyof CountersignOptions, z.ZodType>);

/** @throws OptionError for an unknown option or one that makes no sense, before anything is opened. */
export function settingsOf(options: CountersignOptions): Settings {
  checkOptions(options as unknown as Record<string, unknown>);
  return {
    schema: assertSchemaName(options.schema ?? DEFAULT_SCHEMA),
    prepare: options.prepare ?? true,
    listenUrl: options.listenUrl,
    leaseMs: options.leaseMs ?? 30_000,
    pollIntervalMs: options.pollIntervalMs ?? 1_000,
    maxConcurrentDrives: options.maxConcurrentDrives ?? 16,
    maxPayloadBytes: options.maxPayloadBytes ?? DEFAULT_MAX_PAYLOAD_BYTES,
    onError:
      options.onError ?? ((error) => console.error("countersign:", error instanceof Error ? error.message : error)),
  };
}

export async function openDatabase(
  source: CountersignOptions["database"],
  { schema, prepare, listenUrl }: Settings,
): Promise<Database> {
  if (typeof source === "string") return postgresDatabase(source, { schema, prepare, listenUrl });
  if (typeof source === "object" && source !== null) {
    if ("open" in source && typeof source.open === "function") return source.open(schema);
    if ("connect" in source && "query" in source) return postgresDatabase(source, { schema, prepare, listenUrl });
  }
  throw new OptionError("countersign() got no database", {
    remedy: "Pass a Postgres URL, a pg.Pool, or pglite(folder).",
  });
}
