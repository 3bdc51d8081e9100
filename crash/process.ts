import { type Countersign, countersign, isCountersignError } from "countersign";
import type { Backing } from "./backing.ts";
import { effectsAt } from "./commitments.ts";
import { write } from "./files.ts";
import { graphsOf } from "./graphs.ts";
import type { ProcessInput } from "./life.ts";
import { randomOf } from "./random.ts";
import { play } from "./roles.ts";

/**
 * A process of a run: it plays one role until it is killed, from outside or by itself at a failpoint.
 * SIGTERM lets it close, so that a run can end in peace.
 */
export async function live(backing: Backing): Promise<void> {
  const input = JSON.parse(process.argv[2] ?? "") as ProcessInput;
  armFailpoint(input.failpoint);
  const stop = new AbortController();
  process.once("SIGTERM", () => stop.abort());

  const effects = effectsAt(input.providerUrl);
  const graphs = graphsOf(effects);
  const cs = await openAgainAndAgain(input, backing, graphs);
  console.log("ready");
  await play({ cs, input, graphs, effects, random: randomOf(input.seed), signal: stop.signal });
  await cs.close({ timeoutMs: 3_000 });
  process.exit(0);
}

/** What the bundle makes of `// failpoint: name` calls this. */
function armFailpoint(armed: ProcessInput["failpoint"]): void {
  let hits = 0;
  Object.assign(globalThis, {
    failpoint(name: string): void {
      if (name !== armed?.name || ++hits !== armed.hit) return;
      if (armed.signal === "SIGSTOP") console.log("frozen");
      process.kill(process.pid, armed.signal);
    },
  });
}

/** The database may be away at any time, also now. */
async function openAgainAndAgain(
  input: ProcessInput,
  backing: Backing,
  graphs: ReturnType<typeof graphsOf>,
): Promise<Countersign> {
  const complain = complainer(input, backing);
  for (;;) {
    try {
      return await countersign({
        database: input.databaseUrl,
        schema: input.schema,
        graphs,
        backend: backing.open(input),
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

/** A lease moved on; or a provider was asked on a machine too busy to answer in time, and is asked again. */
const EXPLAINED: ReadonlySet<string> = new Set(["LEASE_LOST", "HANDLER_TIMEOUT"]);

/** Writes down what no kill explains, nor a server that was away. */
function complainer({ dir, role }: ProcessInput, { isAway }: Backing): (error: unknown) => void {
  return (error) => {
    if (isCountersignError(error) && EXPLAINED.has(error.code)) return;
    if (isAway(error)) return;
    const message = error instanceof Error ? `${error.name}: ${error.message}\n${error.stack}` : String(error);
    write(dir, "complaints", { role, message });
  };
}
