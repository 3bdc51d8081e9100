import { Client } from "@temporalio/client";
import { IllegalStateError } from "@temporalio/common";
import { DefaultLogger, NativeConnection, Runtime } from "@temporalio/worker";
import type { TemporalSettings } from "./options.ts";

/** What one process has with Temporal: one connection, for its client and its worker. */
export interface Linked {
  readonly connection: NativeConnection;
  readonly client: Client;
}

/** Connects when it is first needed, and again after that failed. */
export class Link {
  readonly #settings: TemporalSettings;
  #linked: Promise<Linked> | undefined;

  constructor(settings: TemporalSettings) {
    this.#settings = settings;
  }

  get(): Promise<Linked> {
    this.#linked ??= this.#connect().catch((error: unknown) => {
      this.#linked = undefined;
      throw error;
    });
    return this.#linked;
  }

  /** Closes what was opened here. */
  async close(): Promise<void> {
    const linked = await this.#linked?.catch(() => undefined);
    this.#linked = undefined;
    if (this.#settings.connection === undefined) await linked?.connection.close();
  }

  async #connect(): Promise<Linked> {
    installRuntime();
    const { address, apiKey, tls, namespace, dataConverter } = this.#settings;
    const connection =
      this.#settings.connection ??
      (await NativeConnection.connect({
        address,
        ...(apiKey === undefined ? {} : { apiKey }),
        ...(tls === undefined ? {} : { tls: tls === false ? null : tls }),
      }));
    const client = new Client({ connection, namespace, ...(dataConverter === undefined ? {} : { dataConverter }) });
    return { connection, client };
  }
}

/** The SDK's runtime by default logs each step to stderr and takes over SIGINT: neither is ours to decide. */
function installRuntime(): void {
  try {
    Runtime.install({ logger: new DefaultLogger("WARN"), shutdownSignals: [] });
  } catch (error) {
    // There is one per process, and the application has installed its own.
    if (!(error instanceof IllegalStateError)) throw error;
  }
}
