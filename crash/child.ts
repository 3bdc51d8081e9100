import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** A process of a run, as the one that kills it sees it. */
export interface Child {
  readonly process: ChildProcess;
  readonly firstLine: Promise<string>;
  /** Resolves when it has held itself still. */
  readonly frozen: Promise<void>;
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
}

/** Starts a bundled script. What it says on stderr is shown. */
export function startChild(script: string, input: object): Child {
  const process_ = spawn(process.execPath, ["--enable-source-maps", script, JSON.stringify(input)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(process_, "exit").then(([code, signal]) => ({ code, signal }));
  const lines = createInterface(process_.stdout);
  const firstLine = once(lines, "line").then(([line]) => String(line));
  const frozen = new Promise<void>((resolve) => {
    lines.on("line", (line) => line === "frozen" && resolve());
  });
  return { process: process_, firstLine: Promise.race([firstLine, ended.then(() => "ended")]), frozen, ended };
}
