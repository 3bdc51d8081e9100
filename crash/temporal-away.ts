/** Whether an error says that Temporal was away. */
export function isTemporalAway(error: unknown): boolean {
  const { name, code, cause } = error as { readonly name?: unknown; readonly code?: unknown; readonly cause?: unknown };
  return name === "TransportError" || code === UNAVAILABLE || (cause instanceof Error && isTemporalAway(cause));
}

/** gRPC's code for a server that cannot be reached. */
const UNAVAILABLE = 14;
