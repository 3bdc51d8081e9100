export { type PartnerCommitments, partnerCommitments } from "./partner-approval/commitments.ts";
export { type PartnerInput, type PartnerStage, type PartnerType, partnerApproval } from "./partner-approval/graph.ts";
export type { PartnerProviders, ProviderCall } from "./partner-approval/providers.ts";
export { Terms } from "./partner-approval/terms.ts";
