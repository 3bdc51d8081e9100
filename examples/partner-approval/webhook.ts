import { serve } from "@hono/node-server";
import { type AnyCommitment, type Countersign, type ErrorCode, isCountersignError } from "countersign";
import { Hono } from "hono";
import { z } from "zod";

const Signed = z.object({ type: z.literal("envelope.signed"), envelopeId: z.string(), signedBy: z.string() });

const STATUS: { readonly [code in ErrorCode]?: 200 | 404 } = { INTENT_ENDED: 200, INTENT_NOT_FOUND: 404 };

/**
 * Receives the e-sign provider's webhooks. A signature that we do not know of yet is answered 404: it
 * was faster than our own record of the envelope, and the provider sends it again.
 */
export async function receiveWebhooks(
  cs: Countersign,
  sendTermSheet: AnyCommitment,
): Promise<{ url: string; close(): void }> {
  const app = new Hono().post("/webhooks/esign", async (context) => {
    const { envelopeId, signedBy } = Signed.parse(await context.req.json());
    try {
      await cs.complete({ commitment: sendTermSheet, externalRef: envelopeId }, { output: { envelopeId, signedBy } });
      return context.json({ ok: true });
    } catch (error) {
      // Taken only where nothing is left to record. Whatever else went wrong here, a handle that is
      // closing included, must not cost a signature: the provider sends it again.
      const status = isCountersignError(error) ? (STATUS[error.code] ?? 503) : 503;
      return context.json({ error: isCountersignError(error) ? error.code : "UNAVAILABLE" }, status);
    }
  });
  const server = serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0, overrideGlobalObjects: false });
  await new Promise<void>((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  return { url: `http://127.0.0.1:${port}/webhooks/esign`, close: () => server.close() };
}
