import pg from "pg";
import { postgres } from "../../src/backends/postgres/index.ts";
import { temporal } from "../../src/backends/temporal/index.ts";
import { conformanceProcess } from "../../src/testing/index.ts";

/* The process that the conformance suite kills: `tsx conformance-child.ts <job> <url> [<address of Temporal>]`. */

const [job = "", url = "", address] = process.argv.slice(2);
await conformanceProcess(job, {
  pool: new pg.Pool({ connectionString: url }),
  backend: (taskQueue) => (address === undefined ? postgres() : temporal({ address, taskQueue })),
});
