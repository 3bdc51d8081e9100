import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Complaint, LedgerLine, Note } from "./life.ts";

interface Files {
  readonly ledger: LedgerLine;
  readonly notes: Note;
  readonly complaints: Complaint;
}

/** Adds a line. It survives the end of the process by SIGKILL, since the write has reached the kernel. */
export function write<Name extends keyof Files>(dir: string, name: Name, line: Files[Name]): void {
  appendFileSync(join(dir, `${name}.jsonl`), `${JSON.stringify(line)}\n`);
}

/** Every whole line so far. */
export function read<Name extends keyof Files>(dir: string, name: Name): Files[Name][] {
  const path = join(dir, `${name}.jsonl`);
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
  return lines.map((line) => JSON.parse(line) as Files[Name]);
}
