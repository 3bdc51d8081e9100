import type { DurableBackend } from "../../backend.ts";
import { ownerType } from "./catalogue.ts";
import { settingsOf, type TemporalBackendOptions } from "./options.ts";
import { TemporalBackendWorker } from "./worker.ts";

export { createTemporalWorker, type TemporalWorker, type TemporalWorkerOptions } from "./create-worker.ts";
export type { OwnWorkflows, TemporalBackendOptions } from "./options.ts";

/**
 * Carries intents out with Temporal: one workflow per intent, of a type that is pinned to its
 * commitment, under the intent's own id. The row in Postgres stays authoritative, and Temporal's
 * history holds ids, digests and states only.
 * @throws OptionError for an option that makes no sense.
 */
export function temporal(options: TemporalBackendOptions = {}): DurableBackend {
  const settings = settingsOf(options);
  return {
    name: settings.name,
    catalogue({ workflowKey }) {
      const { namespace, taskQueue } = settings;
      return { workflowType: ownerType(settings, { workflowKey, kind: "effect" }), taskQueue, namespace };
    },
    open: (host) => new TemporalBackendWorker(host, settings),
  };
}
