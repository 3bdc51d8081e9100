import type { Backing } from "./backing.ts";
import { onPostgres } from "./on-postgres.ts";
import { onTemporal } from "./on-temporal.ts";

export type BackendName = "postgres" | "temporal";

/** Every backend that a run can be about. */
export const BACKENDS: Readonly<Record<BackendName, Backing>> = { postgres: onPostgres, temporal: onTemporal };
