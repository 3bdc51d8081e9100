import { countersign, isCountersignError } from "countersign";
import { postgres } from "countersign/postgres";
import { effectsAt } from "./commitments.ts";
import { isDatabaseAway } from "./database-away.ts";
import { write } from "./files.ts";
import { graphsOf } from "./graphs.ts";
import type { ProcessInput } from "./life.ts";
import { randomOf } from "./random.ts";
import { play } from "./roles.ts";

/*
 * A process of a run: it plays one role until it is killed, from outside or by itself at a failpoint.
 * SIGTERM lets it close, so that a run can end in peace.
 */
const input = JSON.parse(process.argv[2] ?? "") as ProcessInput;
let hits = 0;
Object.assign(globalThis, {
  failpoint(name: string): void {
    if (name === input.failpoint?.name && ++hits === input.failpoint.hit) process.kill(process.pid, "SIGKILL");
  },
});

const stop = new AbortController();
process.once("SIGTERM", () => stop.abort());

const effects = effectsAt(input.providerUrl);
const graphs = graphsOf(effects);
const cs = await openAgainAndAgain();
console.log("ready");
await play({ cs, input, graphs, effects, random: randomOf(input.seed), signal: stop.signal });
await cs.close({ timeoutMs: 3_000 });
process.exit(0);

/** The database may be away at any time, also now. */
async function openAgainAndAgain() {
  for (;;) {
    try {
      return await countersign({
        database: input.databaseUrl,
        schema: input.schema,
        graphs,
        backend: postgres({ concurrency: 8 }),
        leaseMs: 1_000,
        pollIntervalMs: 100,
        onError: complain,
      });
    } catch (error) {
      complain(error);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** Writes down what no kill explains: everything but leases that moved on and a database that was away. */
function complain(error: unknown): void {
  if (isCountersignError(error) && error.code === "LEASE_LOST") return;
  if (isDatabaseAway(error)) return;
  const message = error instanceof Error ? `${error.name}: ${error.message}\n${error.stack}` : String(error);
  write(input.dir, "complaints", { role: input.role, message });
}
