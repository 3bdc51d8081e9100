import { setTimeout as delay } from "node:timers/promises";
import type { AnyCommitment } from "../commitment.ts";
import { Batcher } from "../database/batcher.ts";
import type { Database } from "../database/client.ts";
import { loadIntentsOfThreads } from "../database/intents.ts";
import {
  claimThreads,
  markLostThreads,
  type Release,
  releaseThreads,
  renewThreadLeases,
  type ThreadRow,
  type ThreadStatus,
} from "../database/threads.ts";
import type { Wakeups } from "../database/wakeups.ts";
import { LeaseLostError } from "../errors.ts";
import type { ExecutionIntent } from "../intent.ts";
import { type DriveResult, driveThread, type RunExtras, type Serializer } from "./drive-thread.ts";
import type { Registry } from "./registry.ts";

export interface DriverInput {
  readonly database: Database;
  readonly wakeups: Wakeups;
  readonly registry: Registry;
  readonly serializer: Serializer;
  readonly driverId: string;
  readonly ownerOf: (commitment: AnyCommitment) => string;
  readonly leaseMs: number;
  readonly pollIntervalMs: number;
  readonly maxConcurrentDrives: number;
  readonly maxPayloadBytes: number;
  readonly onError: (error: unknown) => void;
}

interface Driving {
  readonly thread: ThreadRow;
  readonly abort: AbortController;
  readonly done: Promise<DriveResult>;
}

/** What `setTimeout` can count to. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** The abort reason of a drive whose process closes: the thread goes back, nothing failed. */
const CLOSING: unique symbol = Symbol("closing");

/**
 * Drives threads: those that this process starts, those that are ready, and those whose driver died.
 * It keeps their leases alive, and stops a drive the moment its lease is gone.
 */
export class Driver {
  readonly #input: DriverInput;
  readonly #driving = new Map<string, Driving>();
  /** A notification goes with many of them, and such commits queue up behind each other. */
  readonly #releases: Batcher<Release, ThreadStatus | undefined>;
  /** Threads that are claimed together are read together. */
  readonly #recorded: Batcher<string, readonly ExecutionIntent[]>;
  #slotFreed: () => void = () => {};
  #stopped = false;
  #heartbeat: NodeJS.Timeout | undefined;
  #renewing = false;

  constructor(input: DriverInput) {
    this.#input = input;
    this.#releases = new Batcher((releases) => releaseThreads(input.database, releases));
    this.#recorded = new Batcher((threadIds) => loadIntentsOfThreads(input.database, threadIds));
  }

  /** Drives whatever is ready, until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { wakeups, pollIntervalMs, onError, maxConcurrentDrives } = this.#input;
    let recoverAt = 0;
    while (!signal.aborted) {
      const watch = wakeups.watch("ready");
      this.#slotFreed = () => watch.wake();
      try {
        if (Date.now() >= recoverAt) {
          recoverAt = Date.now() + pollIntervalMs;
          await markLostThreads(this.#input.database);
        }
        const free = maxConcurrentDrives - this.#driving.size;
        for (const thread of free > 0 ? await this.#claim(free) : []) {
          this.drive(thread).catch(onError);
        }
      } catch (error) {
        onError(error);
      }
      if (signal.aborted) watch.cancel();
      else await watch.until(pollIntervalMs, signal);
    }
    await Promise.allSettled([...this.#driving.values()].map(({ done }) => done));
  }

  /** Drives everything that is ready now, and returns how many passes that were. */
  async tick(): Promise<number> {
    await markLostThreads(this.#input.database);
    const threads = await this.#claim(this.#input.maxConcurrentDrives);
    await Promise.all(threads.map((thread) => this.drive(thread)));
    return threads.length;
  }

  /** Drives this thread if it is ready or was left behind; `undefined` when it is neither. */
  async driveById(threadId: string, extras: RunExtras = {}): Promise<DriveResult | undefined> {
    const [thread] = await this.#claim(1, threadId);
    return thread && this.drive(thread, extras);
  }

  /** Drives a thread that this process holds the lease of. */
  drive(thread: ThreadRow, extras: RunExtras = {}): Promise<DriveResult> {
    const { database, registry, serializer, ownerOf, maxPayloadBytes, onError } = this.#input;
    const abort = new AbortController();
    const registered = registry.graph(thread.graph, thread.graph_version);
    const done = driveThread({
      database,
      serializer,
      registered,
      thread,
      ownerOf,
      maxPayloadBytes,
      recorded: (threadId) => this.#recorded.add(threadId),
      release: (release) => this.#releases.add(release),
      extras,
      onError,
      signal: abort.signal,
    }).finally(() => {
      if (this.#driving.get(thread.thread_id)?.abort === abort) this.#driving.delete(thread.thread_id);
      this.#slotFreed();
    });
    // As after a long pause: this process's own lease ran out, and it has taken the thread over from itself.
    const displaced = this.#driving.get(thread.thread_id);
    displaced?.abort.abort(
      new LeaseLostError({ threadId: thread.thread_id, leaseToken: displaced.thread.lease_token }),
    );
    this.#driving.set(thread.thread_id, { thread, abort, done });
    this.#heartbeat ??= setInterval(() => void this.#beat(), this.#input.leaseMs / 3).unref();
    return done;
  }

  /** Waits for running drives, at most this long; then aborts them, and their threads are ready for others. */
  async drain(timeoutMs: number): Promise<void> {
    this.#stopped = true;
    const settled = (): Promise<unknown> => Promise.allSettled([...this.#driving.values()].map(({ done }) => done));
    const stop = new AbortController();
    await Promise.race([
      settled(),
      delay(Math.min(timeoutMs, LONGEST_TIMER_MS), undefined, { signal: stop.signal }).catch(() => {}),
    ]);
    stop.abort();
    for (const { abort } of this.#driving.values()) abort.abort(CLOSING);
    // A node that ignores the signal is left behind with its lease: its writes are refused once it runs out.
    const grace = new AbortController();
    await Promise.race([settled(), delay(1_000, undefined, { signal: grace.signal }).catch(() => {})]);
    grace.abort();
    clearInterval(this.#heartbeat);
    this.#heartbeat = undefined;
  }

  async #claim(limit: number, threadId?: string): Promise<ThreadRow[]> {
    if (this.#stopped) return [];
    const { database, registry, driverId, leaseMs } = this.#input;
    const graphs = registry.drivable;
    return claimThreads(database, {
      driver: driverId,
      leaseMs,
      graphs,
      limit,
      ...(threadId === undefined ? {} : { threadId }),
    });
  }

  /** One renewal at a time: those that wait for the same lock would take the pool's connections one by one. */
  async #beat(): Promise<void> {
    if (this.#renewing) return;
    this.#renewing = true;
    await this.#renew().finally(() => {
      this.#renewing = false;
    });
  }

  async #renew(): Promise<void> {
    if (this.#driving.size === 0) {
      clearInterval(this.#heartbeat);
      this.#heartbeat = undefined;
      return;
    }
    const driving = [...this.#driving.values()];
    const leases = driving.map(({ thread }) => ({ threadId: thread.thread_id, leaseToken: thread.lease_token }));
    try {
      const held = await renewThreadLeases(this.#input.database, { leases, leaseMs: this.#input.leaseMs });
      for (const { thread, abort } of driving) {
        if (held.has(thread.thread_id)) continue;
        abort.abort(new LeaseLostError({ threadId: thread.thread_id, leaseToken: thread.lease_token }));
      }
    } catch (error) {
      this.#input.onError(error);
    }
  }
}
