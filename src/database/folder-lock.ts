import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, realpathSync, writeSync } from "node:fs";
import { join, resolve } from "node:path";
import { tryLock, unlock } from "fs-native-extensions";
import { DatabaseError } from "../errors.ts";

/** One folder, one lock, whatever links lead to it. */
function realPath(folder: string): string {
  const path = resolve(folder);
  mkdirSync(path, { recursive: true });
  return realpathSync(path);
}

/**
 * Takes the exclusive lock on a PGlite folder, or refuses.
 *
 * PGlite does not lock its folder: two processes that open the same one are both told that their
 * writes are safe, and most of them are gone afterwards. The lock is the kernel's (flock), so that
 * it is free the moment its owner dies, SIGKILL included; the file names the owner for the error.
 * @throws DatabaseError `DATABASE_LOCKED`
 */
export function lockFolder(folder: string): () => void {
  // Inside the folder, so that it travels with a volume that two containers mount.
  const path = join(realPath(folder), "countersign.lock");
  const file = openSync(path, "a+");
  if (!tryLock(file)) {
    const owner = readFileSync(path, "utf8").trim();
    closeSync(file);
    throw new DatabaseError("DATABASE_LOCKED", "Another process has this PGlite folder open", {
      facts: { folder: resolve(folder), owner: owner || "unknown" },
      remedy:
        "PGlite serves one process. Stop the other one, use Postgres to share the work, or put @electric-sql/pglite-socket in front of the one process.",
    });
  }
  ftruncateSync(file);
  writeSync(file, `pid ${process.pid}`);
  return () => {
    unlock(file);
    closeSync(file);
  };
}
