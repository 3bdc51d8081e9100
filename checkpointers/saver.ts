import type { PGlite } from "@electric-sql/pglite";
import type { RunnableConfig } from "@langchain/core/runnables";
import type {
  ChannelVersions,
  Checkpoint,
  CheckpointListOptions,
  CheckpointMetadata,
  CheckpointTuple,
  PendingWrite,
} from "@langchain/langgraph-checkpoint";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import type pg from "pg";
import { Batcher } from "../src/database/batcher.ts";
import type { Database } from "../src/database/client.ts";
import { assertSchemaName, DEFAULT_SCHEMA } from "../src/database/migrate.ts";
import { pgliteDatabase } from "../src/database/pglite.ts";
import { postgresDatabase } from "../src/database/postgres.ts";
import { Drive } from "../src/drive.ts";
import { BoundaryError, OptionError } from "../src/errors.ts";
import { DRIVE_KEY, HELD_KEY } from "../src/langgraph.ts";
import { HeldWrites } from "./held-writes.ts";
import {
  type CheckpointTupleRow,
  checkpointStatement,
  type HeadPlace,
  type HeadRow,
  headsStatement,
  listStatement,
} from "./read-statements.ts";
import { setUp } from "./setup.ts";
import { keepable, proposalsOf } from "./task-writes.ts";
import { WriteBatcher, type WriteTicket } from "./write-batcher.ts";
import { blobRow, callOf, type WriteCall, writeRow } from "./write-call.ts";
import { type CheckpointPlace, WriteOrder } from "./write-order.ts";

export interface CountersignSaverOptions {
  /** The Postgres schema of all tables, LangGraph's included. Defaults to `countersign`. */
  readonly schema?: string;
  /** Named prepared statements; switch off behind pgbouncer in transaction mode. Defaults to true. */
  readonly prepare?: boolean;
}

/**
 * A LangGraph checkpointer on Postgres or PGlite, in the tables and layout of `PostgresSaver`.
 *
 * What one tick writes goes out as one statement and one commit, over all threads. On top of what
 * `PostgresSaver` promises: a checkpoint never commits before the task writes that led to it (T1);
 * forks keep their own values (T2); the head of a thread does not depend on machine clocks (T3); a
 * failed task leaves no partial writes that would count as done (T5). Under `countersign()` the
 * intents of a task commit with its writes (G1), behind the thread's fence (G7).
 *
 * It is an ordinary checkpointer on its own, too: `new CountersignSaver(pool)`, `await saver.setup()`.
 */
export class CountersignSaver extends PostgresSaver {
  readonly #database: Database;
  readonly #batcher: WriteBatcher;
  readonly #order = new WriteOrder();
  /** A run begins with reading where its thread stands: those that begin in one tick ask together. */
  readonly #heads: Batcher<HeadPlace, CheckpointTupleRow | undefined>;

  constructor(source: pg.Pool | PGlite | Database, options: CountersignSaverOptions = {}) {
    const database = open(source, options);
    super(database.pool as unknown as pg.Pool, undefined, { schema: database.schema });
    this.#database = database;
    this.#batcher = new WriteBatcher(database);
    this.#heads = new Batcher(async (places) => {
      const rows = await database.query<HeadRow>(headsStatement(database.schema, places));
      const byPlace = new Map(rows.map((row) => [row.place, row]));
      return places.map((_, index) => byPlace.get(index + 1));
    });
  }

  static override fromConnString(url: string, options: CountersignSaverOptions = {}): CountersignSaver {
    return new CountersignSaver(
      postgresDatabase(url, { ...options, schema: assertSchemaName(options.schema ?? DEFAULT_SCHEMA) }),
    );
  }

  /** Creates or migrates the tables. Any number of processes may call it at once. */
  override async setup(): Promise<void> {
    await setUp(this.#database);
  }

  /** Unique per branch, so that a fork never meets the blob of the branch that it left (T2). Grows with each version. */
  override getNextVersion(current: number | undefined): number {
    return Math.floor(current ?? 0) + 1 + Math.random();
  }

  override async put(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    newVersions: ChannelVersions,
  ): Promise<RunnableConfig> {
    assertConfigured(config, "thread_id");
    const issuedAt = performance.now();
    const { threadId, ns, checkpointId: parent, drive, run } = placeOf(config);
    const place = { threadId, ns, checkpointId: checkpoint.id };
    drive?.checkpoints.add(checkpoint.id);
    // In `exit` LangGraph puts the checkpoint that it stands on once more: that one follows nothing.
    const after = parent === undefined || parent === checkpoint.id ? undefined : { ...place, checkpointId: parent };
    const ticket = this.#join(run, "put", place, after, drive, async () => {
      const [blobs, metadataJson] = await Promise.all([
        this._dumpBlobs(threadId, ns, checkpoint.channel_values, newVersions),
        this._dumpMetadata(metadata),
      ]);
      // A step of the graph itself ends only when none of its tasks waits, however deep.
      if (ns === "" && metadata.source === "loop") drive?.assertNoTaskWaits();
      const row = {
        ns,
        id: checkpoint.id,
        parent,
        checkpoint: this._dumpCheckpoint(checkpoint),
        metadata: metadataJson,
      };
      return callOf(threadId, drive, { checkpoints: [row], blobs: blobs.map(blobRow) });
    });
    await this.#persisted(ticket, drive);
    // What led to a checkpoint that is persisted needs no guarding any more.
    if (after !== undefined) {
      this.#order.forget(run, "writes", after);
      this.#order.forget(run, "put", after);
    }
    if (drive !== undefined) {
      drive.persistLagMs = Math.max(drive.persistLagMs, Math.round(performance.now() - issuedAt));
    }
    const next = { thread_id: threadId, checkpoint_ns: ns, checkpoint_id: checkpoint.id };
    // What an update writes to its new checkpoint comes with this config alone.
    return { configurable: run instanceof HeldWrites ? { ...next, [HELD_KEY]: run } : next };
  }

  override async putWrites(config: RunnableConfig, writes: PendingWrite[], taskId: string): Promise<void> {
    assertConfigured(config, "thread_id", "checkpoint_id");
    const { threadId, ns, checkpointId, drive, run } = placeOf(config);
    const place = { threadId, ns, checkpointId: checkpointId ?? "" };
    const ticket = this.#join(run, "writes", place, place, drive, async () => {
      const kept = keepable(writes);
      const proposals = drive === undefined ? [] : proposalsOf(drive, kept, taskId);
      const rows = await this._dumpWrites(threadId, ns, place.checkpointId, taskId, kept);
      return callOf(threadId, drive, { writes: rows.map(writeRow), proposals });
    });
    await this.#persisted(ticket, drive);
  }

  /**
   * Serialises now, waits for what must commit first, and joins the batch. A `put` comes after the
   * writes to its parent, task writes come after the `put` of their own checkpoint.
   */
  #join(
    run: object,
    kind: "put" | "writes",
    place: CheckpointPlace,
    after: CheckpointPlace | undefined,
    drive: Drive | undefined,
    serialise: () => Promise<WriteCall>,
  ): Promise<WriteTicket> {
    const other = kind === "put" ? "writes" : "put";
    const joined = (async () => {
      try {
        const call = await serialise();
        if (after !== undefined) await this.#order.behind(run, other, after);
        return (run instanceof HeldWrites ? run : this.#batcher).write(call);
      } catch (error) {
        if (drive !== undefined) drive.persistenceError ??= error;
        throw error;
      }
    })();
    joined.catch(() => {});
    this.#order.note(run, kind, place, joined);
    return joined;
  }

  async #persisted(joined: Promise<WriteTicket>, drive: Drive | undefined): Promise<void> {
    try {
      await (await joined).done;
    } catch (error) {
      if (drive === undefined) throw error;
      drive.persistenceError ??= error;
      // In `async` LangGraph awaits nothing until the end, and an unhandled rejection would end the
      // process (T12). The drive looks at `persistenceError` and marks the thread lost.
      if (drive.graph.durability !== "async") throw error;
    }
  }

  override async getTuple(config: RunnableConfig): Promise<CheckpointTuple | undefined> {
    const { threadId, ns, checkpointId, drive } = placeOf(config);
    const reading =
      checkpointId === undefined ? this.#heads.add({ threadId, ns }) : this.#read(threadId, ns, checkpointId);
    const row = await reading.catch((error: unknown) => {
      // Not the graph's fault: the drive is repeated, it does not fail.
      if (drive !== undefined) drive.persistenceError ??= error;
      throw error;
    });
    if (row !== undefined) drive?.checkpoints.add(row.checkpoint_id);
    return row && this.#tuple(row);
  }

  async #read(threadId: string, ns: string, checkpointId: string): Promise<CheckpointTupleRow | undefined> {
    const statement = checkpointStatement(this.#database.schema, threadId, ns, checkpointId);
    const [row] = await this.#database.query<CheckpointTupleRow>(statement);
    return row;
  }

  override async *list(config: RunnableConfig, options?: CheckpointListOptions): AsyncGenerator<CheckpointTuple> {
    const [where, values] = this._searchWhere(config, options?.filter, undefined);
    const statement = listStatement(this.#database.schema, {
      where,
      values,
      before: options?.before?.configurable?.checkpoint_id as string | undefined,
      limit: options?.limit,
    });
    for (const row of await this.#database.query<CheckpointTupleRow>(statement)) yield this.#tuple(row);
  }

  async #tuple(row: CheckpointTupleRow): Promise<CheckpointTuple> {
    const { thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id } = row;
    const config = { configurable: { thread_id, checkpoint_ns, checkpoint_id } };
    if (row.checkpoint.v < 4 && parent_checkpoint_id !== null) {
      // Written by an old LangGraph: the base class knows how to migrate it.
      return (await super.getTuple(config)) as CheckpointTuple;
    }
    const tuple: CheckpointTuple = {
      config,
      checkpoint: await this._loadCheckpoint(row.checkpoint as never, row.channel_values as never),
      metadata: (await this._loadMetadata(row.metadata as never)) as CheckpointMetadata,
      pendingWrites: await this._loadWrites(row.pending_writes as never),
    };
    if (parent_checkpoint_id !== null) {
      tuple.parentConfig = { configurable: { thread_id, checkpoint_ns, checkpoint_id: parent_checkpoint_id } };
    }
    return tuple;
  }

  /** @throws BoundaryError for a thread of Countersign's: its intents and audit rows must outlive its checkpoints. */
  override async deleteThread(threadId: string): Promise<void> {
    const [ours] = await this.#database.query({
      text: `select from ${this.#database.schema}.threads where thread_id = $1`,
      values: [threadId],
    });
    if (ours !== undefined) {
      throw new BoundaryError("A thread that Countersign drives cannot be deleted by its checkpointer", {
        facts: { threadId },
        remedy: "Cancel it with cs.cancel(threadId): what it committed stays on record.",
      });
    }
    await super.deleteThread(threadId);
  }
}

function open(source: pg.Pool | PGlite | Database, options: CountersignSaverOptions): Database {
  if ("kind" in source) return source;
  const schema = assertSchemaName(options.schema ?? DEFAULT_SCHEMA);
  return "waitReady" in source
    ? pgliteDatabase(source, schema)
    : postgresDatabase(source, { schema, prepare: options.prepare ?? true });
}

interface Place {
  readonly threadId: string;
  readonly ns: string;
  readonly checkpointId: string | undefined;
  readonly drive: Drive | undefined;
  /** What is shared by the calls of one run, subgraphs included. */
  readonly run: object;
}

function placeOf(config: RunnableConfig): Place {
  const configurable = config.configurable ?? {};
  const { [DRIVE_KEY]: drive, [HELD_KEY]: held } = configurable;
  const control = (config as { readonly control?: object }).control;
  return {
    threadId: String(configurable.thread_id ?? ""),
    ns: String(configurable.checkpoint_ns ?? ""),
    checkpointId: (configurable.checkpoint_id as string | undefined) || undefined,
    drive: drive instanceof Drive ? drive : undefined,
    run: [held, drive].find((run) => run instanceof HeldWrites || run instanceof Drive) ?? control ?? config,
  };
}

function assertConfigured(config: RunnableConfig, ...keys: readonly string[]): void {
  for (const key of keys) {
    if (config.configurable?.[key]) continue;
    throw new OptionError(`The config of a checkpointer call has no configurable.${key}`, {
      remedy: "Invoke the graph with { configurable: { thread_id } }.",
    });
  }
}
