import type { Terms } from "./terms.ts";

/** What every call to a provider carries: the key by which it tells a repetition, and when to give up. */
export interface ProviderCall {
  readonly idempotencyKey: string;
  readonly signal: AbortSignal;
}

/** The outside world of partner approval, as the embedding application reaches it. */
export interface PartnerProviders {
  readonly esign: {
    createEnvelope(sheet: { partnerId: string; terms: Terms }, call: ProviderCall): Promise<{ envelopeId: string }>;
    voidEnvelope(envelope: { envelopeId: string; reason: string }, call: ProviderCall): Promise<void>;
  };
  readonly crm: {
    activatePartner(partner: { partnerId: string }, call: ProviderCall): Promise<{ activationId: string }>;
    deactivatePartner(partner: { partnerId: string }, call: ProviderCall): Promise<void>;
  };
  readonly mail: {
    send(
      notice: { partnerId: string; to: string; kind: "welcome" | "withdrawal" },
      call: ProviderCall,
    ): Promise<{ messageId: string }>;
  };
}
