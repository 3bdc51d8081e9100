import { randomUUID } from "node:crypto";
import { HTTPException } from "hono/http-exception";
import { z } from "zod";
import { answerRef, createHttpApp, idempotencyKey, providerApi } from "./http-api.ts";
import { type HttpServer, startHttpServer } from "./http-server.ts";
import type { Ledger, LedgerEntry } from "./ledger.ts";
import { createProvider, type Provider, type ProviderOptions, perform } from "./provider.ts";
import { createWebhook, type Webhook, type WebhookEvent } from "./webhook.ts";

/** What `GET /envelopes?idempotencyKey=…` tells; whatever else the creator sent is in it too. */
export interface Envelope {
  readonly envelopeId: string;
  readonly idempotencyKey: string | null;
  readonly partnerId: string;
  readonly terms: unknown;
  readonly status: "sent" | "signed" | "voided";
}

const NewEnvelope = z.looseObject({
  partnerId: z.string().min(1),
  terms: z.unknown().refine((terms) => terms !== undefined, "required"),
});
const Void = z.object({ reason: z.string().min(1) });
const Signature = z.object({ signedBy: z.string().min(1).optional() });
const LOOPBACK = ["127.0.0.1", "localhost", "[::1]"];
const Callback = z.object({
  url: z.url({ protocol: /^http$/ }).refine((url) => LOOPBACK.includes(new URL(url).hostname), "loopback only"),
});

/**
 * An e-sign provider. A signature is announced to the webhook until it is taken; one that was not delivered
 * when the provider died is announced again after its restart.
 */
export async function startEsign({ dir, port = 0 }: ProviderOptions): Promise<HttpServer> {
  const provider = createProvider("esign", dir);
  const webhook = createWebhook();
  const app = createHttpApp(provider);
  addTestControls(app, provider, webhook);
  app.route("/", envelopeRoutes(provider));
  const server = await startHttpServer(app, port);
  for (const signed of undelivered(provider.ledger)) void announce(provider, webhook, signed);
  return {
    url: server.url,
    async close() {
      webhook.close();
      await server.close();
      provider.ledger.close();
    },
  };
}

function envelopeRoutes(provider: Provider): ReturnType<typeof providerApi> {
  const { ledger } = provider;
  return providerApi(provider)
    .post("/envelopes", async (c) => {
      const detail = NewEnvelope.parse(await c.req.json());
      const ref = `env-${randomUUID()}`;
      const performed = perform(provider, { kind: "envelope.create", key: idempotencyKey(c), ref, detail });
      return answerRef(c, performed, { name: "envelopeId", status: 201 });
    })
    .post("/envelopes/:id/void", async (c) => {
      const { reason } = Void.parse(await c.req.json());
      const envelopeId = mustFind(ledger, c.req.param("id")).ref;
      const effect = { kind: "envelope.void", ref: `void-${randomUUID()}`, detail: { envelopeId, reason } };
      const performed = perform(provider, { ...effect, key: idempotencyKey(c) });
      return answerRef(c, performed, { name: "voidId", status: 200 });
    })
    .get("/envelopes", (c) => {
      // Keys are remembered even while they are not honoured, so that a client can still reconcile.
      const entry = ledger.findByKey(c.req.query("idempotencyKey") ?? "");
      return c.json({ envelope: entry?.kind === "envelope.create" ? envelopeOf(ledger, entry) : null });
    });
}

function addTestControls(app: ReturnType<typeof createHttpApp>, provider: Provider, webhook: Webhook): void {
  const { ledger } = provider;
  app.post("/control/webhook", async (c) => {
    const { url } = Callback.parse(await c.req.json());
    webhook.pointTo(url);
    return c.json({ url });
  });
  app.post("/envelopes/:id/sign", async (c) => {
    const { signedBy } = Signature.parse(JSON.parse((await c.req.text()) || "{}"));
    const envelope = envelopeOf(ledger, mustFind(ledger, c.req.param("id")));
    const { envelopeId, partnerId } = envelope;
    if (envelope.status === "voided") throw new HTTPException(409, { message: "the envelope is voided" });
    const before = findOf(ledger, "envelope.sign", envelopeId);
    if (before !== undefined) return c.json(signedEvent(before));
    const detail = { envelopeId, signedBy: signedBy ?? partnerId };
    const signed = ledger.done({ kind: "envelope.sign", key: null, ref: `sig-${randomUUID()}`, detail });
    void announce(provider, webhook, signed);
    return c.json(signedEvent(signed));
  });
}

async function announce({ ledger }: Provider, webhook: Webhook, signed: LedgerEntry): Promise<void> {
  const event = signedEvent(signed);
  const delivered = await webhook.deliver(event);
  const detail = { envelopeId: event.envelopeId };
  if (delivered) ledger.done({ kind: "webhook.deliver", key: null, ref: signed.ref, detail });
}

function undelivered(ledger: Ledger): LedgerEntry[] {
  const delivered = new Set(ledger.entries.filter((e) => e.kind === "webhook.deliver").map((e) => e.ref));
  return ledger.entries.filter((e) => e.kind === "envelope.sign" && !delivered.has(e.ref));
}

function signedEvent({ at, detail }: LedgerEntry): WebhookEvent {
  const { envelopeId, signedBy } = detail;
  return {
    type: "envelope.signed",
    envelopeId: String(envelopeId),
    signedBy: String(signedBy),
    signedAt: at,
  };
}

function envelopeOf(ledger: Ledger, { ref, key, detail }: LedgerEntry): Envelope {
  const { partnerId, terms } = NewEnvelope.parse(detail);
  const signed = findOf(ledger, "envelope.sign", ref) === undefined ? "sent" : "signed";
  const status = findOf(ledger, "envelope.void", ref) === undefined ? signed : "voided";
  return { ...detail, envelopeId: ref, idempotencyKey: key, partnerId, terms, status };
}

function mustFind(ledger: Ledger, envelopeId: string): LedgerEntry {
  const entry = ledger.entries.find((e) => e.kind === "envelope.create" && e.ref === envelopeId);
  if (entry === undefined) throw new HTTPException(404, { message: "no such envelope" });
  return entry;
}

function findOf(ledger: Ledger, kind: string, envelopeId: string): LedgerEntry | undefined {
  return ledger.entries.find((e) => e.kind === kind && e.detail.envelopeId === envelopeId);
}
