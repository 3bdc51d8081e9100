import { DefaultLogger, MetricsBuffer, Runtime } from "@temporalio/worker";

/** What the SDK counts every call under, those that wait for a task apart. */
const COUNTERS = ["temporal_request", "temporal_long_request"];

/** Counts the calls that this process sends to a Temporal server: its clients' and its workers', polls included. */
export class ServerCalls {
  readonly #buffer: MetricsBuffer;

  private constructor(buffer: MetricsBuffer) {
    this.#buffer = buffer;
  }

  /** Once per process, and before anything connects: what it connects with later is counted. */
  static install(): ServerCalls {
    const buffer = new MetricsBuffer({ maxBufferSize: 1_000_000 });
    Runtime.install({
      logger: new DefaultLogger("WARN"),
      shutdownSignals: [],
      telemetryOptions: { metrics: { buffer } },
    });
    return new ServerCalls(buffer);
  }

  /** The calls since this was last asked. */
  take(): number {
    let calls = 0;
    for (const { metric, value } of this.#buffer.retrieveUpdates()) if (COUNTERS.includes(metric.name)) calls += value;
    return calls;
  }
}
