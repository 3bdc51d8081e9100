import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { hostname } from "node:os";
import type pg from "pg";
import { z } from "zod";
import { checker, LONGEST_MS, text } from "../../arguments.ts";
import type { BackendHost } from "../../backend.ts";
import type { AnyCommitment } from "../../commitment.ts";
import type { Database } from "../../database/client.ts";
import { assertSchemaName, DEFAULT_SCHEMA, migrate } from "../../database/migrate.ts";
import { postgresDatabase } from "../../database/postgres.ts";
import { Wakeups } from "../../database/wakeups.ts";
import { DEFAULT_MAX_PAYLOAD_BYTES } from "../../json.ts";
import { Carrier } from "./carrier.ts";
import { TEMPORAL_OPTIONS, type TemporalBackendOptions, withDefaults } from "./options.ts";

/** What `createTemporalWorker()` takes: the same of Temporal as `temporal()`, and the same of the database as `countersign()`. */
export interface TemporalWorkerOptions extends Omit<TemporalBackendOptions, "worker"> {
  /** A Postgres URL, or an existing `pg.Pool`, which stays the caller's. */
  readonly database: string | pg.Pool;
  /** The commitments whose handlers run here: the only process that needs what they need to know. */
  readonly commitments: readonly AnyCommitment[];
  /** Defaults to `countersign`. */
  readonly schema?: string;
  /** Defaults to true. */
  readonly prepare?: boolean;
  /** As in the processes that relay. Milliseconds, defaults to 30 000. */
  readonly leaseMs?: number;
  /** As in the processes that relay: the largest output, as canonical JSON. Bytes, defaults to 1 MiB. */
  readonly maxPayloadBytes?: number;
  /** Defaults to a line on stderr. */
  readonly onError?: (error: unknown) => void;
}

/** A worker in a process of its own. */
export interface TemporalWorker extends AsyncDisposable {
  /** Polls the task queue until the signal aborts or it is closed; finishes what it has begun. */
  run(options?: { readonly signal?: AbortSignal }): Promise<void>;
  /** Waits for running handlers, at most this long; what is not finished then, another worker takes over. Defaults to 10 000. */
  close(options?: { readonly timeoutMs?: number }): Promise<void>;
}

const check = checker("createTemporalWorker()", {
  options: z.strictObject({
    ...TEMPORAL_OPTIONS,
    database: z.union([text, z.looseObject({ connect: z.unknown(), query: z.unknown() })]),
    commitments: z.array(z.looseObject({ workflowKey: text })).min(1),
    schema: text.optional(),
    prepare: z.boolean().optional(),
    leaseMs: z.int().min(100).max(LONGEST_MS).optional(),
    maxPayloadBytes: z.int().min(1).optional(),
    onError: z.custom((value) => typeof value === "function", "Pass a function").optional(),
  }),
});

/**
 * A process that only carries intents out: no graph, no model, no inbox. Processes with
 * `temporal({ worker: false })` hand over; this one has the handlers, and their credentials.
 * @throws OptionError, DatabaseError; nothing stays open then.
 */
export async function createTemporalWorker(options: TemporalWorkerOptions): Promise<TemporalWorker> {
  check({ options });
  const { database: source, commitments, schema, prepare, leaseMs, maxPayloadBytes, onError, ...others } = options;
  const database = postgresDatabase(source, {
    schema: assertSchemaName(schema ?? DEFAULT_SCHEMA),
    prepare: prepare ?? true,
  });
  const wakeups = new Wakeups();
  try {
    await migrate(database);
    await wakeups.open(database);
  } catch (error) {
    await wakeups.close();
    await database.close();
    throw error;
  }
  const host: BackendHost = {
    ...{ database, wakeups, pollIntervalMs: 1_000 },
    leaseMs: leaseMs ?? 30_000,
    maxPayloadBytes: maxPayloadBytes ?? DEFAULT_MAX_PAYLOAD_BYTES,
    commitments: new Map(commitments.map((commitment) => [commitment.workflowKey, commitment])),
    workerId: `${hostname()}:${process.pid}:${randomUUID().slice(0, 8)}`,
    onError: onError ?? ((error) => console.error("countersign:", error instanceof Error ? error.message : error)),
  };
  return new StandaloneWorker(new Carrier(host, withDefaults(others)), database, wakeups);
}

class StandaloneWorker implements TemporalWorker {
  readonly #carrier: Carrier;
  readonly #database: Database;
  readonly #wakeups: Wakeups;
  readonly #running = new Set<Promise<void>>();

  constructor(carrier: Carrier, database: Database, wakeups: Wakeups) {
    this.#carrier = carrier;
    this.#database = database;
    this.#wakeups = wakeups;
  }

  async run({ signal }: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const { closing } = this.#carrier;
    const stop = signal === undefined ? closing : AbortSignal.any([signal, closing]);
    const running = this.#carrier.whilePolling(async () => {
      const cancellations = this.#carrier.watchCancellations(stop);
      if (!stop.aborted) await once(stop, "abort");
      await cancellations;
    });
    this.#running.add(running);
    await running.finally(() => this.#running.delete(running));
  }

  async close({ timeoutMs = 10_000 }: { readonly timeoutMs?: number } = {}): Promise<void> {
    if (this.#carrier.closing.aborted) return;
    await this.#carrier.close({ timeoutMs });
    await Promise.allSettled(this.#running);
    await this.#wakeups.close();
    await this.#database.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
