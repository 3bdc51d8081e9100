import type { DataConverter } from "@temporalio/common";
import type { NativeConnection, TLSConfig } from "@temporalio/worker";
import { OptionError } from "../../errors.ts";

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

const KNOWN = [
  "name",
  "address",
  "namespace",
  "taskQueue",
  "apiKey",
  "tls",
  "connection",
  "dataConverter",
  "worker",
  "concurrency",
  "deployment",
  "ownWorkflows",
] as const satisfies readonly (keyof TemporalBackendOptions)[];

/** @throws OptionError for an unknown option or one that makes no sense, before anything is opened. */
export function settingsOf(options: TemporalBackendOptions): TemporalSettings {
  for (const key of Object.keys(options)) {
    if ((KNOWN as readonly string[]).includes(key)) continue;
    throw new OptionError(`temporal() does not know the option '${key}'`, { remedy: `It knows ${KNOWN.join(", ")}.` });
  }
  const { concurrency = 24, deployment } = options;
  if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > 10_000) {
    throw new OptionError("temporal() got a concurrency that makes no sense", {
      facts: { concurrency: String(concurrency) },
      remedy: "Give a whole number from 1 to 10000.",
    });
  }
  if (deployment !== undefined && !(isName(deployment.name) && isName(deployment.buildId))) {
    throw new OptionError("temporal() got a deployment without a name or a buildId", {
      remedy: "Give deployment: { name, buildId }, with a new buildId for each version of your code.",
    });
  }
  assertOwnWorkflows(options.ownWorkflows);
  return {
    ...options,
    name: text(options.name, "temporal", "name"),
    address: text(options.address, "127.0.0.1:7233", "address"),
    namespace: text(options.namespace, "default", "namespace"),
    taskQueue: text(options.taskQueue, "countersign", "taskQueue"),
    worker: options.worker ?? true,
    concurrency,
  };
}

function assertOwnWorkflows(own: OwnWorkflows | undefined): void {
  if (own === undefined) return;
  const wrong = Object.entries(own.types ?? {}).find(([, type]) => !/^[A-Za-z_$][\w$]*$/.test(type) || OURS.has(type));
  if (wrong === undefined && isName(own.path) && own.types !== undefined) return;
  throw new OptionError("temporal() got workflows that cannot own a commitment", {
    facts: { path: String(own.path), commitment: wrong?.[0], workflow: wrong?.[1] },
    remedy: "Give the module's path, and for each name@version a function that it exports.",
  });
}

const OURS: ReadonlySet<string> = new Set(["carryOut", "default"]);

function text(value: string | undefined, otherwise: string, option: string): string {
  if (value === undefined) return otherwise;
  if (isName(value)) return value;
  throw new OptionError(`temporal() got a ${option} that is no text`, { remedy: "Leave it out, or name one." });
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}
