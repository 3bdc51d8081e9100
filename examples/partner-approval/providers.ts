import type { PartnerProviders, ProviderCall } from "countersign/graphs";
import nodemailer from "nodemailer";
import { z } from "zod";
import type { WorldAddresses } from "./world/start.ts";

/** The clients for the outside world: each call carries its idempotency key and can be given up. */
export function connectProviders({ esignUrl, crmUrl, mailPort }: WorldAddresses): PartnerProviders {
  const transport = nodemailer.createTransport({ host: "127.0.0.1", port: mailPort, secure: false });
  const Envelope = z.object({ envelopeId: z.string() });
  const Activation = z.object({ activationId: z.string() });
  return {
    esign: {
      createEnvelope: async (sheet, call) =>
        Envelope.parse(await request(`${esignUrl}/envelopes`, "POST", sheet, call)),
      voidEnvelope: async ({ envelopeId, reason }, call) => {
        await request(`${esignUrl}/envelopes/${envelopeId}/void`, "POST", { reason }, call);
      },
    },
    crm: {
      activatePartner: async ({ partnerId }, call) =>
        Activation.parse(await request(`${crmUrl}/partners/${partnerId}/activate`, "POST", {}, call)),
      deactivatePartner: async ({ partnerId }, call) => {
        await request(`${crmUrl}/partners/${partnerId}/deactivate`, "POST", {}, call);
      },
    },
    mail: {
      send: async ({ to, kind }, { idempotencyKey }) => {
        const messageId = `<${idempotencyKey}@countersign.example>`;
        const subject = kind === "welcome" ? "Welcome as our partner" : "We withdraw our offer";
        await transport.sendMail({ from: "partners@countersign.example", to, subject, text: subject, messageId });
        return { messageId };
      },
    },
  };
}

async function request(url: string, method: string, body: unknown, call: ProviderCall): Promise<unknown> {
  const response = await fetch(url, {
    method,
    headers: { "content-type": "application/json", "idempotency-key": call.idempotencyKey },
    body: JSON.stringify(body),
    signal: call.signal,
  });
  if (!response.ok) throw new Error(`${method} ${new URL(url).pathname} answered ${response.status}`);
  return response.json();
}
