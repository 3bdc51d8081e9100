import { type Commitment, defineCommitment, NonRetryableError, pending } from "countersign";
import { z } from "zod";
import type { PartnerProviders } from "./providers.ts";
import { Terms } from "./terms.ts";

const DAY_MS = 24 * 3_600_000;

const TermSheet = z.object({ partnerId: z.string(), terms: Terms });
const SignedTermSheet = z.object({ envelopeId: z.string(), signedBy: z.string() });
const Notice = z.object({ partnerId: z.string(), to: z.email(), kind: z.enum(["welcome", "withdrawal"]) });

/** Everything that the partner-approval graph may propose. */
export interface PartnerCommitments {
  readonly sendTermSheet: Commitment<z.infer<typeof TermSheet>, z.infer<typeof SignedTermSheet>>;
  readonly activatePartner: Commitment<{ partnerId: string }, { activationId: string }>;
  readonly notifyPartner: Commitment<z.infer<typeof Notice>, { messageId: string }>;
}

/** Declares the commitments on the embedding application's own clients for e-sign, CRM and mail. */
export function partnerCommitments({ esign, crm, mail }: PartnerProviders): PartnerCommitments {
  return {
    // Out for signature; the provider's webhook ends it, asking the provider is the fallback.
    sendTermSheet: defineCommitment({
      name: "term-sheet.send",
      version: 1,
      sideEffectClass: "external_commitment",
      approvalClass: "A3",
      reversibilityClass: "R3",
      sensitivityClass: "S2",
      approvers: { roles: [["legal"], ["executive"]] },
      input: TermSheet,
      output: SignedTermSheet,
      summary: ({ partnerId }) => `Send the term sheet to ${partnerId} for signature`,
      timeoutMs: 10_000,
      execute: async (sheet, { idempotencyKey, signal }) => {
        const { envelopeId } = await esign.createEnvelope(sheet, { idempotencyKey, signal });
        return pending({ externalRef: envelopeId, expiresAt: new Date(Date.now() + 14 * DAY_MS) });
      },
      compensate: async ({ idempotencyKey: sentUnder, output, externalRef, reason }, { idempotencyKey, signal }) => {
        const envelopeId = output?.envelopeId ?? externalRef;
        if (envelopeId === undefined) {
          // Given up during the call: a person has to look, and the compensation stands as failed until then.
          throw new NonRetryableError(`An envelope may be out under the key ${sentUnder}: void it at the provider`);
        }
        await esign.voidEnvelope({ envelopeId, reason }, { idempotencyKey, signal });
      },
    }),

    activatePartner: defineCommitment({
      name: "partner.activate",
      version: 1,
      sideEffectClass: "internal_write",
      approvalClass: "A1",
      reversibilityClass: "R1",
      sensitivityClass: "S1",
      input: z.object({ partnerId: z.string() }),
      output: z.object({ activationId: z.string() }),
      summary: ({ partnerId }) => `Activate ${partnerId} in the CRM`,
      execute: (input, { idempotencyKey, signal }) => crm.activatePartner(input, { idempotencyKey, signal }),
      compensate: async ({ input }, { idempotencyKey, signal }) => {
        await crm.deactivatePartner(input, { idempotencyKey, signal });
      },
    }),

    notifyPartner: defineCommitment({
      name: "partner.notify",
      version: 1,
      sideEffectClass: "external_message",
      approvalClass: "A1",
      reversibilityClass: "R2",
      sensitivityClass: "S2",
      input: Notice,
      output: z.object({ messageId: z.string() }),
      summary: ({ partnerId, kind }) => `Send the ${kind} mail to ${partnerId}`,
      execute: (notice, { idempotencyKey, signal }) => mail.send(notice, { idempotencyKey, signal }),
    }),
  };
}
