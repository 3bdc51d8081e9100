import { once } from "node:events";
import type { HttpBindings } from "@hono/node-server";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import { type Context, Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { ZodError } from "zod";
import { faultControl } from "./faults.ts";
import { KeyReusedError, type Performed, type Provider } from "./provider.ts";

export interface HttpEnv {
  Bindings: HttpBindings;
}

/**
 * An app with `/control/faults` and the errors of a provider. Routes added to it are not subject to faults;
 * those of {@link providerApi} are.
 */
export function createHttpApp({ faults }: Pick<Provider, "faults">): Hono<HttpEnv> {
  const app = new Hono<HttpEnv>();
  app.route("/control/faults", faultControl(faults));
  app.onError(answerError);
  return app;
}

/** The routes that clients use: each request is noted as seen, then meets the next planned fault. */
export function providerApi({ ledger, faults }: Provider): Hono<HttpEnv> {
  return new Hono<HttpEnv>().use(async (c, next) => {
    const fault = faults.take();
    ledger.see({
      kind: `${c.req.method} ${c.req.path}`,
      key: idempotencyKey(c),
      fault: fault?.kind ?? null,
    });
    switch (fault?.kind) {
      case undefined:
        return next();
      case "fail":
        return c.json({ error: "planned fault" }, fault.status as ContentfulStatusCode);
      case "hang":
        await once(c.env.outgoing, "close");
        return RESPONSE_ALREADY_SENT;
      case "drop-before-work":
        c.env.incoming.socket.destroy();
        return RESPONSE_ALREADY_SENT;
      case "drop-after-work":
        await next();
        c.env.incoming.socket.destroy();
        c.res = RESPONSE_ALREADY_SENT.clone();
    }
  });
}

export function idempotencyKey(c: Context): string | null {
  return c.req.header("Idempotency-Key") || null;
}

/** Answers with the provider's id of the effect under `name`; a replay says so in a header, as Stripe does. */
export function answerRef(
  c: Context,
  { entry, replayed }: Performed,
  { name, status }: { readonly name: string; readonly status: 200 | 201 },
): Response {
  if (replayed) c.header("Idempotent-Replayed", "true");
  return c.json({ [name]: entry.ref }, status);
}

function answerError(error: Error, c: Context): Response {
  if (error instanceof HTTPException) return c.json({ error: error.message }, error.status);
  if (error instanceof KeyReusedError) return c.json({ error: error.message }, 422);
  if (error instanceof ZodError) return c.json({ error: "invalid request", issues: error.issues }, 400);
  if (error instanceof SyntaxError) return c.json({ error: "the body is no JSON" }, 400);
  console.error(error);
  return c.json({ error: "internal error" }, 500);
}
