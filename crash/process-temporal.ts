import { DefaultLogger, makeTelemetryFilterString, Runtime } from "@temporalio/worker";
import { onTemporal } from "./on-temporal.ts";
import { live } from "./process.ts";

// The SDK would say at length each time that it finds its server gone.
Runtime.install({
  logger: new DefaultLogger("ERROR"),
  telemetryOptions: { logging: { forward: {}, filter: makeTelemetryFilterString({ core: "ERROR", other: "ERROR" }) } },
  shutdownSignals: [],
});
await live(onTemporal);
