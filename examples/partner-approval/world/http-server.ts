import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { getRequestListener } from "@hono/node-server";
import type { Hono } from "hono";
import type { HttpEnv } from "./http-api.ts";

export interface HttpServer {
  readonly url: string;
  /** Frees the port at once: open connections, hanging requests included, are cut. */
  close(): Promise<void>;
}

/** Serves the app on loopback. Port 0 lets the operating system choose. */
export async function startHttpServer(app: Hono<HttpEnv>, port: number): Promise<HttpServer> {
  // The world also runs inside test processes, whose Request and Response must stay Node's own.
  const server = createServer(getRequestListener(app.fetch, { overrideGlobalObjects: false }));
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const { port: bound } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${bound}`,
    async close() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
