import type { AnyCommitment } from "../../commitment.ts";
import type { TemporalSettings } from "./options.ts";
import { type IntentRun, workflowType } from "./protocol.ts";

/** The one workflow type that owns what is proposed of this commitment, or what undoes it. */
export function ownerType(
  settings: Pick<TemporalSettings, "ownWorkflows">,
  { workflowKey, kind }: Pick<IntentRun, "workflowKey" | "kind">,
): string {
  const own = kind === "effect" ? settings.ownWorkflows?.types[workflowKey] : undefined;
  return own ?? workflowType(workflowKey, kind);
}

/** Every workflow type of these commitments, and the exported function that is behind it. */
export function registeredTypes(
  settings: Pick<TemporalSettings, "ownWorkflows">,
  commitments: Iterable<AnyCommitment>,
): ReadonlyMap<string, string> {
  const types = new Map<string, string>();
  for (const { workflowKey, handlers } of commitments) {
    const type = ownerType(settings, { workflowKey, kind: "effect" });
    types.set(type, type === workflowKey ? "carryOut" : type);
    if (handlers.compensate !== undefined) types.set(workflowType(workflowKey, "compensation"), "carryOut");
  }
  return types;
}
