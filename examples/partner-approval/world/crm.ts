import { randomUUID } from "node:crypto";
import type { Context } from "hono";
import { z } from "zod";
import { answerRef, createHttpApp, type HttpEnv, idempotencyKey, providerApi } from "./http-api.ts";
import { type HttpServer, startHttpServer } from "./http-server.ts";
import { createProvider, type Provider, type ProviderOptions, perform } from "./provider.ts";

const Fields = z.looseObject({});
const Deal = z.looseObject({ partnerId: z.string().min(1) });

/** A CRM: contacts, deals, and whether a partner is active. */
export async function startCrm({ dir, port = 0 }: ProviderOptions): Promise<HttpServer> {
  const provider = createProvider("crm", dir);
  const app = createHttpApp(provider);
  app.route("/", crmRoutes(provider));
  const server = await startHttpServer(app, port);
  return {
    url: server.url,
    async close() {
      await server.close();
      provider.ledger.close();
    },
  };
}

function crmRoutes(provider: Provider): ReturnType<typeof providerApi> {
  return providerApi(provider)
    .put("/contacts/:partnerId", async (c) => {
      const partnerId = c.req.param("partnerId");
      const detail = { ...(await fieldsOf(c)), partnerId };
      const effect = { kind: "contact.upsert", key: idempotencyKey(c), ref: `contact-${partnerId}`, detail };
      return answerRef(c, perform(provider, effect), { name: "contactId", status: 200 });
    })
    .post("/deals", async (c) => {
      const detail = Deal.parse(await fieldsOf(c));
      const effect = { kind: "deal.create", key: idempotencyKey(c), ref: `deal-${randomUUID()}`, detail };
      return answerRef(c, perform(provider, effect), { name: "dealId", status: 201 });
    })
    .post("/partners/:id/activate", async (c) => {
      const detail = { ...(await fieldsOf(c)), partnerId: c.req.param("id") };
      const effect = { kind: "partner.activate", key: idempotencyKey(c), ref: `act-${randomUUID()}`, detail };
      return answerRef(c, perform(provider, effect), { name: "activationId", status: 200 });
    })
    .post("/partners/:id/deactivate", async (c) => {
      const detail = { ...(await fieldsOf(c)), partnerId: c.req.param("id") };
      const effect = {
        kind: "partner.deactivate",
        key: idempotencyKey(c),
        ref: `deact-${randomUUID()}`,
        detail,
      };
      return answerRef(c, perform(provider, effect), { name: "deactivationId", status: 200 });
    });
}

/** The body, which may be left out. */
async function fieldsOf(c: Context<HttpEnv>): Promise<Record<string, unknown>> {
  return Fields.parse(JSON.parse((await c.req.text()) || "{}"));
}
