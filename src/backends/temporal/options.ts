import type { DataConverter } from "@temporalio/common";
import { NativeConnection, type TLSConfig } from "@temporalio/worker";
import { z } from "zod";
import { checker, text } from "../../arguments.ts";

/** What `temporal()` takes. */
export interface TemporalBackendOptions {
  /** Recorded as the owner in each intent's row; a second Temporal beside this one needs another. Defaults to `temporal`. */
  readonly name?: string;
  /** `host:port` of the Temporal frontend. Defaults to `127.0.0.1:7233`. */
  readonly address?: string;
  /** Defaults to `default`. */
  readonly namespace?: string;
  /**
   * Where workflows and activities of these commitments are queued. All processes that poll one queue
   * must register the same commitments. Defaults to `countersign`.
   */
  readonly taskQueue?: string;
  /** An API key, for Temporal Cloud. */
  readonly apiKey?: string;
  /** TLS, with client certificates for mTLS. Defaults to none without an API key. */
  readonly tls?: TLSConfig | boolean;
  /** An existing connection, in place of address, apiKey and tls. Stays open when Countersign closes. */
  readonly connection?: NativeConnection;
  /** Encrypts or converts what goes through Temporal; needed on every side that reads it. Defaults to plain JSON. */
  readonly dataConverter?: DataConverter;
  /** Whether `work()` also polls the task queue here; false where `createTemporalWorker()` does so elsewhere. Defaults to true. */
  readonly worker?: boolean;
  /** Activities that run at once in this process. Defaults to 24. */
  readonly concurrency?: number;
  /** Pins each workflow to the worker version that started it. Defaults to no worker versioning. */
  readonly deployment?: { readonly name: string; readonly buildId: string };
  /** Defaults to none: each commitment is owned by the workflow that ships. */
  readonly ownWorkflows?: OwnWorkflows;
}

/** Workflows of your own that own commitments. */
export interface OwnWorkflows {
  /**
   * A module that exports them and, for the commitments without one, `carryOut` from
   * `countersign/temporal/workflows`. It is bundled when a worker starts.
   */
  readonly path: string;
  /**
   * Which exported workflow owns which commitment, by `name@version`. It gets an `IntentRun` and must
   * pass it to `carryOut`, which is the only way to the handler.
   */
  readonly types: Readonly<Record<string, string>>;
  /** Activities that they call beside ours. */
  readonly activities?: object;
}

/** The options with their defaults, each checked. */
export interface TemporalSettings
  extends Pick<
    TemporalBackendOptions,
    "apiKey" | "tls" | "connection" | "dataConverter" | "deployment" | "ownWorkflows"
  > {
  readonly name: string;
  readonly address: string;
  readonly namespace: string;
  readonly taskQueue: string;
  readonly worker: boolean;
  readonly concurrency: number;
}

const workflowName = z
  .string()
  .regex(/^(?!carryOut$|default$)[A-Za-z_$][\w$]*$/, "Name a function that the module exports, other than ours");

/** The options of `temporal()`, each with what it may be. */
export const TEMPORAL_OPTIONS = {
  name: text.optional(),
  address: text.optional(),
  namespace: text.optional(),
  taskQueue: text.optional(),
  apiKey: z.string().optional(),
  tls: z.union([z.boolean(), z.looseObject({})]).optional(),
  connection: z.custom((value) => value instanceof NativeConnection, "Pass a NativeConnection").optional(),
  dataConverter: z.looseObject({}).optional(),
  concurrency: z.int().min(1).max(10_000).optional(),
  deployment: z.strictObject({ name: text, buildId: text }).optional(),
  ownWorkflows: z
    .strictObject({ path: text, types: z.record(text, workflowName), activities: z.looseObject({}).optional() })
    .optional(),
} satisfies Record<Exclude<keyof TemporalBackendOptions, "worker">, z.ZodType>;

const check = checker("temporal()", {
  options: z.strictObject({ ...TEMPORAL_OPTIONS, worker: z.boolean().optional() }),
});

/** @throws OptionError for an unknown option or one that makes no sense, before anything is opened. */
export function settingsOf(options: TemporalBackendOptions): TemporalSettings {
  check({ options });
  return withDefaults(options);
}

export function withDefaults(options: TemporalBackendOptions): TemporalSettings {
  return {
    ...options,
    name: options.name ?? "temporal",
    address: options.address ?? "127.0.0.1:7233",
    namespace: options.namespace ?? "default",
    taskQueue: options.taskQueue ?? "countersign",
    worker: options.worker ?? true,
    concurrency: options.concurrency ?? 24,
  };
}
