/** Whether an error says that the database was away: Postgres's classes 08 and 57P0x, a cut socket, `pg`'s own words. */
export function isDatabaseAway(error: unknown): boolean {
  const { code, message, cause } = error as {
    readonly code?: unknown;
    readonly message?: unknown;
    readonly cause?: unknown;
  };
  return (
    /^(08...|57P0[1-5]|ECONNREFUSED|ECONNRESET|EPIPE)$/.test(String(code)) ||
    /Connection terminated|not queryable|Client has encountered a connection error/.test(String(message)) ||
    (cause instanceof Error && isDatabaseAway(cause))
  );
}
