import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { CountersignSaver } from "../../checkpointers/saver.ts";
import type { BackendWorker, DurableBackend } from "../backend.ts";
import type { AnyCommitment } from "../commitment.ts";
import { Batcher } from "../database/batcher.ts";
import type { Database } from "../database/client.ts";
import { insertThreads } from "../database/new-threads.ts";
import { findOrphan } from "../database/owners.ts";
import { Wakeups } from "../database/wakeups.ts";
import { BoundaryError, OptionError } from "../errors.ts";
import type { DecideContext } from "./decide.ts";
import { Driver } from "./driver.ts";
import { assertDurabilityHonoured } from "./durability-check.ts";
import type { HistoryContext } from "./history.ts";
import { type CountersignOptions, openDatabase, type Settings, settingsOf } from "./options.ts";
import type { OutsideContext } from "./outside.ts";
import { Registry } from "./registry.ts";
import type { StartContext } from "./start.ts";
import { Sweeper } from "./sweeper.ts";
import { ThreadEnds } from "./thread-ends.ts";

/** Who carries a commitment out. */
export interface CatalogueEntry {
  /** `name@version` */
  readonly commitment: string;
  readonly backend: string;
  /** What the backend says of it: for Temporal workflow type, task queue and namespace. */
  readonly service: Readonly<Record<string, string>>;
}

/** Everything behind a handle, wired to one database. */
export interface Parts {
  readonly settings: Settings;
  readonly database: Database;
  readonly wakeups: Wakeups;
  readonly saver: CountersignSaver;
  readonly driver: Driver;
  readonly sweeper: Sweeper;
  readonly ends: ThreadEnds;
  readonly worker: BackendWorker;
  readonly starting: StartContext;
  readonly deciding: DecideContext;
  readonly outside: OutsideContext;
  readonly history: HistoryContext;
  readonly catalogue: CatalogueEntry[];
}

/** Opens the database, migrates it, compiles the graphs and binds the backend; closes again what it opened if that fails. */
export async function assemble(options: CountersignOptions): Promise<Parts> {
  assertOutsideWorkflow();
  const settings = settingsOf(options);
  const database = await openDatabase(options.database, settings);
  const wakeups = new Wakeups();
  try {
    const saver = new CountersignSaver(database);
    await saver.setup();
    const registry = new Registry(options.graphs, { checkpointer: saver, store: options.store });
    if (options.graphs.some((graph) => graph.durability === "durable")) await assertDurabilityHonoured();
    await assertOwned(database, options.backend, registry);
    await wakeups.open(database);
    return wire({ options, settings, database, wakeups, saver, registry });
  } catch (error) {
    await wakeups.close();
    await database.close();
    throw error;
  }
}

/** Temporal replays workflow code: a graph in there would call its models again, and read a clock that stands still. */
function assertOutsideWorkflow(): void {
  if (!("__TEMPORAL_ACTIVATOR__" in globalThis)) return;
  throw new BoundaryError("A graph was to run inside a Temporal workflow", {
    remedy: "Call countersign() in a process of its own; a workflow can be started by a commitment of the graph's.",
  });
}

function ownerOf(backend: DurableBackend): (commitment: AnyCommitment) => string {
  return (commitment) => backend.ownerOf?.(commitment) ?? backend.name;
}

/** Each commitment has one owner, and each open intent an owner that is here: nobody else would carry it out (G7). */
async function assertOwned(database: Database, backend: DurableBackend, { commitments }: Registry): Promise<void> {
  for (const commitment of commitments.values()) ownerOf(backend)(commitment);
  const names = backend.names ?? [backend.name];
  const orphan = await findOrphan(database, { backends: names, workflowKeys: [...commitments.keys()] });
  if (orphan === undefined) return;
  throw new OptionError("An intent that is open, or could be undone, belongs to a backend that is not configured", {
    facts: { intentId: orphan.id, commitment: orphan.workflowKey, owner: orphan.backend },
    remedy: "Let its owner finish: route({ default: … }, { drain: [the old backend] }).",
  });
}

interface Opened extends Pick<Parts, "settings" | "database" | "wakeups" | "saver"> {
  readonly options: CountersignOptions;
  readonly registry: Registry;
}

function wire({ options, settings, database, wakeups, saver, registry }: Opened): Parts {
  const { backend } = options;
  const { leaseMs, maxPayloadBytes } = settings;
  const { commitments } = registry;
  const driverId = `${hostname()}:${process.pid}:${randomUUID().slice(0, 8)}`;
  const shared = { ...settings, database, wakeups };
  const serializer = saver.serde;
  const driver = new Driver({ ...shared, registry, serializer, driverId, ownerOf: ownerOf(backend) });
  const worker = backend.open({ ...shared, commitments, workerId: driverId });
  return {
    settings,
    database,
    wakeups,
    saver,
    driver,
    worker,
    sweeper: new Sweeper(shared),
    ends: new ThreadEnds(database),
    starting: {
      ...{ database, registry, serializer, driver, driverId, leaseMs },
      starts: new Batcher((threads) => insertThreads(database, threads)),
    },
    deciding: { database, commitments, maxPayloadBytes },
    outside: { database, commitments, maxPayloadBytes, released: (intent) => worker.released(intent) },
    history: { database, registry, saver, driverId, leaseMs },
    catalogue: [...commitments.values()].map((commitment) => ({
      commitment: commitment.workflowKey,
      backend: ownerOf(backend)(commitment),
      service: backend.catalogue?.(commitment) ?? {},
    })),
  };
}
