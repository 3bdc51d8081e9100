import { randomUUID } from "node:crypto";
import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { text } from "node:stream/consumers";
import { SMTPServer, type SMTPServerDataStream, type SMTPServerSession } from "smtp-server";
import { createHttpApp } from "./http-api.ts";
import { startHttpServer } from "./http-server.ts";
import { parseMailHeaders } from "./mail-headers.ts";
import { createProvider, KeyReusedError, type Provider, type ProviderOptions, perform } from "./provider.ts";

export interface MailServer {
  readonly port: number;
  /** Where `/control/faults` is. */
  readonly controlUrl: string;
  close(): Promise<void>;
}

export interface MailOptions extends ProviderOptions {
  readonly controlPort?: number | undefined;
}

type Reply = (error?: Error | null, message?: string) => void;

/** A mail server without accounts or TLS. A message whose Message-ID it knows is taken and thrown away. */
export async function startMail({ dir, port = 0, controlPort = 0 }: MailOptions): Promise<MailServer> {
  const provider = createProvider("mail", dir);
  const sockets = new Map<number, Socket>();
  const smtp = new SMTPServer({
    disabledCommands: ["AUTH", "STARTTLS"],
    disableReverseLookup: true,
    onData: (stream, session, reply) => {
      const drop = (): void => void sockets.get(session.remotePort)?.destroy();
      receive(provider, { stream, session, reply, drop }).catch((error: unknown) => {
        console.error(error);
        drop();
      });
    },
  });
  smtp.server.on("connection", (socket: Socket) => {
    const remotePort = socket.remotePort ?? 0;
    sockets.set(remotePort, socket);
    socket.once("close", () => sockets.delete(remotePort));
  });
  // Connections that are cut are the business of this server; the library reports them as its errors.
  smtp.on("error", () => {});
  const control = await startHttpServer(createHttpApp(provider), controlPort);
  try {
    smtp.listen(port, "127.0.0.1");
    await once(smtp.server, "listening");
  } catch (error) {
    await control.close();
    throw error;
  }
  return {
    port: (smtp.server.address() as AddressInfo).port,
    controlUrl: control.url,
    async close() {
      const closed = new Promise<void>((resolve) => smtp.close(resolve));
      for (const socket of sockets.values()) socket.destroy();
      await Promise.all([closed, control.close()]);
      provider.ledger.close();
    },
  };
}

interface Delivery {
  readonly stream: SMTPServerDataStream;
  readonly session: SMTPServerSession;
  readonly reply: Reply;
  readonly drop: () => void;
}

async function receive(provider: Provider, { stream, session, reply, drop }: Delivery): Promise<void> {
  const message = await textOf(stream);
  if (message === undefined) return;
  const { to, subject, messageId: key } = parseMailHeaders(message);
  const recipients = session.envelope.rcptTo.map(({ address }) => address);
  const accept = (): string => {
    const effect = {
      kind: "mail.accept",
      key,
      ref: `mail-${randomUUID()}`,
      detail: { to, subject, recipients },
    };
    return `OK: queued as ${perform(provider, effect).entry.ref}`;
  };
  const fault = provider.faults.take();
  provider.ledger.see({ kind: "DATA", key, fault: fault?.kind ?? null });
  switch (fault?.kind) {
    case undefined:
      return answer(reply, accept);
    case "fail":
      return reply(smtpError(fault.status, "planned fault"));
    case "hang":
      return;
    case "drop-before-work":
      return drop();
    case "drop-after-work":
      return answer(drop, accept);
  }
}

function answer(reply: Reply, accept: () => string): void {
  try {
    reply(null, accept());
  } catch (error) {
    if (!(error instanceof KeyReusedError)) throw error;
    reply(smtpError(554, "this Message-ID was used for another mail"));
  }
}

/** The message, or undefined when the sender left in the middle: then they have sent none. */
async function textOf(stream: SMTPServerDataStream): Promise<string | undefined> {
  return text(stream).catch(() => undefined);
}

function smtpError(responseCode: number, message: string): Error {
  return Object.assign(new Error(message), { responseCode });
}
