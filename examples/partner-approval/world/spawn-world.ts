import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { WorldAddresses, WorldOptions } from "./start.ts";

export interface WorldProcess extends WorldAddresses {
  /** The world itself, without a wrapper between, so that a signal to it reaches it. */
  readonly child: ChildProcess;
}

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const MAIN = fileURLToPath(new URL("main.ts", import.meta.url));

/**
 * Starts the world as a process of its own, which ends when this one does. To bring a killed world back
 * where it was, give its folder and ports again.
 * @throws when it ended before it was ready; what went wrong is on stderr.
 */
export async function spawnWorld({ dir, ports = {} }: WorldOptions): Promise<WorldProcess> {
  const { esign = 0, crm = 0, mail = 0, mailControl = 0 } = ports;
  const portArgs = [`--esign-port=${esign}`, `--crm-port=${crm}`, `--mail-port=${mail}`];
  const args = ["--dir", resolve(dir), ...portArgs, `--mail-control-port=${mailControl}`];
  const child = spawn(process.execPath, ["--import", "tsx", MAIN, ...args], {
    cwd: ROOT,
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ready = once(createInterface({ input: child.stdout }), "line");
  const [line] = await Promise.race([ready, once(child, "exit").then(([code]) => endedEarly(code))]);
  return { ...(JSON.parse(line) as WorldAddresses), child };
}

function endedEarly(code: unknown): never {
  throw new Error(`The world ended with code ${String(code)} before it was ready.`);
}
