import { postgres } from "countersign/postgres";
import type { Backing } from "./backing.ts";
import { isDatabaseAway } from "./database-away.ts";

/** The embedded worker, which needs nothing but the database. */
export const onPostgres: Backing = { open: () => postgres({ concurrency: 40 }), isAway: isDatabaseAway };
