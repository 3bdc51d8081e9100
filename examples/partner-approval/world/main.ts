/**
 * The outside world as a process of its own, so that it lives on when the process of the SDK is killed:
 *
 *     node --import tsx examples/partner-approval/world/main.ts --dir D [--esign-port N] [--crm-port N]
 *       [--mail-port N] [--mail-control-port N]
 *
 * When ready, it prints its addresses as one line of JSON. It ends on SIGTERM or SIGINT, and when its stdin
 * closes, so it never outlives whoever holds the other end: start it with a pipe there, not with /dev/null.
 */
import { parseArgs } from "node:util";
import { startWorld, type WorldAddresses } from "./start.ts";

const { values } = parseArgs({
  options: {
    dir: { type: "string" },
    "esign-port": { type: "string", default: "0" },
    "crm-port": { type: "string", default: "0" },
    "mail-port": { type: "string", default: "0" },
    "mail-control-port": { type: "string", default: "0" },
  },
});
if (values.dir === undefined) throw new Error("Where shall the ledgers be? Give --dir <folder>.");

const { close, ...addresses } = await startWorld({
  dir: values.dir,
  ports: {
    esign: Number(values["esign-port"]),
    crm: Number(values["crm-port"]),
    mail: Number(values["mail-port"]),
    mailControl: Number(values["mail-control-port"]),
  },
});

const end = (): void => void close().then(() => process.exit(0));
process.once("SIGTERM", end);
process.once("SIGINT", end);
process.stdin.once("close", end).resume();
process.stdout.write(`${JSON.stringify(addresses satisfies WorldAddresses)}\n`);
