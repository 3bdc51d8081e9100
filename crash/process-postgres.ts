import { onPostgres } from "./on-postgres.ts";
import { live } from "./process.ts";

await live(onPostgres);
