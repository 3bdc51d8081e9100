import { startCrm } from "./crm.ts";
import { startEsign } from "./esign.ts";
import { startMail } from "./mail.ts";

export interface WorldAddresses {
  readonly esignUrl: string;
  readonly crmUrl: string;
  readonly mailPort: number;
  readonly mailControlUrl: string;
}

/** The outside world of the example: everybody who is asked for an effect, on loopback. */
export interface World extends WorldAddresses {
  /** Cuts every connection and frees the ports; the ledgers stay. */
  close(): Promise<void>;
}

export interface WorldOptions {
  /** Where the ledgers are. A world started on the ledgers of another remembers what that one did. */
  readonly dir: string;
  /** 0 lets the operating system choose. Each defaults to 0. */
  readonly ports?: Partial<Readonly<Record<"esign" | "crm" | "mail" | "mailControl", number | undefined>>>;
}

/** Starts all servers in this process. Where one cannot start, none is left running. */
export async function startWorld({ dir, ports = {} }: WorldOptions): Promise<World> {
  const running: { close(): Promise<void> }[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(running.splice(0).map((server) => server.close()));
  };
  try {
    const esign = await startEsign({ dir, port: ports.esign });
    running.push(esign);
    const crm = await startCrm({ dir, port: ports.crm });
    running.push(crm);
    const mail = await startMail({ dir, port: ports.mail, controlPort: ports.mailControl });
    running.push(mail);
    return {
      esignUrl: esign.url,
      crmUrl: crm.url,
      mailPort: mail.port,
      mailControlUrl: mail.controlUrl,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
