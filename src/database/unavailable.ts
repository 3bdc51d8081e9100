import { DatabaseError } from "../errors.ts";

/** What Postgres says, by SQLSTATE, when it is there and will not do it now; the first that fits counts. */
const REFUSALS: readonly (readonly [RegExp, string, string])[] = [
  [/^25006$/, "The database is read-only", "Point it at the primary, or wait until the failover is over."],
  [
    /^53300$/,
    "The database has no connection left",
    "Raise max_connections, share a pool, or put pgbouncer before it.",
  ],
  [/^53...$/, "The database has run out of something", "Look at its disk and its memory."],
  [/^57014$/, "The database gave up a statement", "Raise its statement_timeout, or find out what holds it up."],
  [/^(55P03|25P0[34])$/, "The database gave up waiting", "Raise its time-outs, or find out what holds it up."],
  [
    /^(28...|3D000)$/,
    "The database does not let this process in",
    "Look at the user, the password and the database's name.",
  ],
];

/** The connection could not be made or broke: Postgres' classes 08 and 57P0x, the system's codes, `pg`'s own words. */
const AWAY_CODE = /^(08...|57P0[1-5]|ECONN\w+|EPIPE|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOENT)$/;
const AWAY_WORDS = /Connection terminated|not queryable|connection error|timeout exceeded when trying to connect/;

/**
 * What the application can be told when the database cannot be used now, in our words; any other error as it is.
 * It says nothing of whether the last statement was committed: a connection may break on the way back.
 */
export function translateUnavailable(error: unknown): unknown {
  const { code, message } = error as { readonly code?: unknown; readonly message?: unknown };
  for (const [pattern, shortMessage, remedy] of REFUSALS) {
    if (pattern.test(String(code))) return unavailable(shortMessage, remedy, error);
  }
  if (!AWAY_CODE.test(String(code)) && !AWAY_WORDS.test(String(message))) return error;
  return unavailable("The database cannot be reached", "Try again when it is back: what was committed stands.", error);
}

function unavailable(shortMessage: string, remedy: string, cause: unknown): DatabaseError {
  const { code } = cause as { readonly code?: unknown };
  return new DatabaseError("DATABASE_UNAVAILABLE", shortMessage, {
    facts: { reason: typeof code === "string" ? code : undefined },
    remedy,
    cause,
  });
}
