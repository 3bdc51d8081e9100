import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { OfficeMessage, OfficeOptions } from "./office.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const OFFICE = fileURLToPath(new URL("office.ts", import.meta.url));

export interface PlayedLife {
  /** Every point that was reached, those of killed processes included. */
  readonly points: readonly string[];
  readonly kills: number;
  readonly ended: Extract<OfficeMessage, { ended: unknown }>["ended"];
}

/**
 * Plays one life of a partner to its end. The process that plays it is killed with SIGKILL at the
 * given points, counted from 1 over all its reincarnations, and started again each time.
 * @param onPoint hears of each point as it is reached.
 */
export async function playLife(
  options: OfficeOptions,
  killAt: ReadonlySet<number> = new Set(),
  onPoint: (point: string, killed: boolean) => void = () => {},
): Promise<PlayedLife> {
  const points: string[] = [];
  let kills = 0;
  for (;;) {
    const child = spawn(process.execPath, ["--import", "tsx", OFFICE, JSON.stringify(options)], {
      cwd: ROOT,
      stdio: ["pipe", "pipe", "inherit"],
    });
    const exited = once(child, "exit");
    let killed = false;
    for await (const line of createInterface({ input: child.stdout })) {
      const message = JSON.parse(line) as OfficeMessage;
      if ("ended" in message) {
        goOn(child);
        await exited;
        return { points, kills, ended: message.ended };
      }
      points.push(message.point);
      killed = killAt.has(points.length);
      onPoint(message.point, killed);
      if (killed) {
        child.kill("SIGKILL");
        break;
      }
      goOn(child);
    }
    const [code] = await exited;
    if (!killed) throw new Error(`The office ended with code ${String(code)} before the life was over.`);
    kills++;
  }
}

function goOn(child: ChildProcess): void {
  child.stdin?.write("go on\n");
}
