import { z } from "zod";
import { checker } from "../../arguments.ts";
import type { DurableBackend } from "../../backend.ts";
import { PostgresWorker } from "./worker.ts";

export interface PostgresBackendOptions {
  /** Handlers that run at once in this process. Defaults to 24. */
  readonly concurrency?: number;
}

const check = checker("postgres()", {
  options: z.strictObject({ concurrency: z.int().min(1).max(10_000).optional() }),
});

/**
 * The embedded backend: a worker in your own process, on the database that you have. It claims with
 * `FOR UPDATE SKIP LOCKED`, wakes on `NOTIFY`, and needs nothing else; it runs on PGlite, too.
 */
export function postgres(options: PostgresBackendOptions = {}): DurableBackend {
  check({ options });
  const { concurrency = 24 } = options;
  return {
    name: "postgres",
    open: (host) => new PostgresWorker(host, { name: "postgres", concurrency }),
  };
}
