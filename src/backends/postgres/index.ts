import type { DurableBackend } from "../../backend.ts";
import { OptionError } from "../../errors.ts";
import { PostgresWorker } from "./worker.ts";

export interface PostgresBackendOptions {
  /** Handlers that run at once in this process. Defaults to 24. */
  readonly concurrency?: number;
}

/**
 * The embedded backend: a worker in your own process, on the database that you have. It claims with
 * `FOR UPDATE SKIP LOCKED`, wakes on `NOTIFY`, and needs nothing else; it runs on PGlite, too.
 */
export function postgres(options: PostgresBackendOptions = {}): DurableBackend {
  const { concurrency = 24 } = options;
  if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > 10_000) {
    throw new OptionError("postgres() got a concurrency that makes no sense", {
      facts: { concurrency: String(concurrency) },
      remedy: "Give a whole number from 1 to 10000.",
    });
  }
  return {
    name: "postgres",
    open: (host) => new PostgresWorker(host, { name: "postgres", concurrency }),
  };
}
