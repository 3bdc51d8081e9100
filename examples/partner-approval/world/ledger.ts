import { appendFileSync, closeSync, fsyncSync, mkdirSync, openSync, readFileSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";

/** One effect that a provider did: what the outside world looks like afterwards. */
export interface LedgerEntry {
  /** When it was done, in ISO 8601. */
  readonly at: string;
  /** What was done, such as `envelope.create`. */
  readonly kind: string;
  /** The idempotency key of the request (the Message-ID of a mail), if it had one. */
  readonly key: string | null;
  /** The provider's own id of what it did. */
  readonly ref: string;
  readonly detail: Readonly<Record<string, unknown>>;
}

/** One request that reached a provider, whether or not anything came of it. */
export interface SeenRequest {
  readonly at: string;
  /** Method and path, or `DATA` for a mail. */
  readonly kind: string;
  readonly key: string | null;
  /** The planned fault that met the request. */
  readonly fault: string | null;
}

/**
 * A provider's memory: `<name>.done.jsonl` and `<name>.seen.jsonl`, append-only, one JSON line each.
 * A line is on disk when the call returns, so it survives SIGKILL; everything a provider knows after a
 * restart comes from here. Two open ledgers of one name in one folder do not see each other's lines.
 */
export interface Ledger {
  /** Every effect so far, oldest first. */
  readonly entries: readonly LedgerEntry[];
  /** The first effect done under this key. */
  findByKey(key: string): LedgerEntry | undefined;
  done(entry: Omit<LedgerEntry, "at">): LedgerEntry;
  see(request: Omit<SeenRequest, "at">): void;
  close(): void;
}

const Entry: z.ZodType<LedgerEntry> = z.object({
  at: z.string(),
  kind: z.string(),
  key: z.string().nullable(),
  ref: z.string(),
  detail: z.record(z.string(), z.unknown()),
});
const Seen: z.ZodType<SeenRequest> = z.object({
  at: z.string(),
  kind: z.string(),
  key: z.string().nullable(),
  fault: z.string().nullable(),
});

/** Opens the ledger of the provider `name` in `dir`, and makes the folder if there is none. */
export function openLedger(dir: string, name: string): Ledger {
  mkdirSync(dir, { recursive: true });
  cutTornLine(donePath(dir, name));
  cutTornLine(seenPath(dir, name));
  const entries = readDone(dir, name);
  const byKey = new Map<string, LedgerEntry>();
  for (const entry of entries) remember(byKey, entry);
  const doneFile = openSync(donePath(dir, name), "a");
  const seenFile = openSync(seenPath(dir, name), "a");
  return {
    entries,
    findByKey: (key) => byKey.get(key),
    done(effect) {
      const line = append(doneFile, effect);
      // What we keep is what a restart would read, so that both compare alike.
      const entry = Entry.parse(JSON.parse(line));
      entries.push(entry);
      remember(byKey, entry);
      return entry;
    },
    see: (request) => void append(seenFile, request),
    close() {
      closeSync(doneFile);
      closeSync(seenFile);
    },
  };
}

/** The effects that the provider `name` did, oldest first; none when it has no ledger yet. */
export function readDone(dir: string, name: string): LedgerEntry[] {
  return completeLines(donePath(dir, name)).map((line) => Entry.parse(JSON.parse(line)));
}

/** The requests that reached the provider `name`, oldest first; none when it has no ledger yet. */
export function readSeen(dir: string, name: string): SeenRequest[] {
  return completeLines(seenPath(dir, name)).map((line) => Seen.parse(JSON.parse(line)));
}

const donePath = (dir: string, name: string): string => join(dir, `${name}.done.jsonl`);
const seenPath = (dir: string, name: string): string => join(dir, `${name}.seen.jsonl`);

function remember(byKey: Map<string, LedgerEntry>, entry: LedgerEntry): void {
  if (entry.key !== null && !byKey.has(entry.key)) byKey.set(entry.key, entry);
}

/**
 * Synchronous on purpose: between the look-up of a key and its line on disk nothing else may run, or two
 * requests with one key would both do the work.
 */
function append(file: number, fields: object): string {
  const line = JSON.stringify({ at: new Date().toISOString(), ...fields });
  appendFileSync(file, `${line}\n`);
  fsyncSync(file);
  return line;
}

/** A line without its newline was being written when the reader came or the writer died. */
function completeLines(path: string): string[] {
  return readIfAny(path).toString("utf8").split("\n").slice(0, -1);
}

/** Nobody was told of a torn line, and the next one must not be glued to it. */
function cutTornLine(path: string): void {
  const bytes = readIfAny(path);
  const end = bytes.lastIndexOf("\n") + 1;
  if (end < bytes.length) truncateSync(path, end);
}

function readIfAny(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return Buffer.alloc(0);
    throw error;
  }
}
