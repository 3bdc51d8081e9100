import { parseArgs } from "node:util";
import { benchConcurrent } from "./concurrent.ts";
import { benchExit } from "./exit.ts";
import { benchGrowth } from "./growth.ts";
import { benchLatency } from "./latency.ts";
import type { BenchResult } from "./measure.ts";
import { benchOutbox } from "./outbox.ts";
import { benchStep } from "./step.ts";
import { benchTemporal } from "./temporal.ts";

/* `npm run bench -- [name …] [--json] [--ended <n>]`: each bench runs us and the peer side by side. */
const { values: flags, positionals: named } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    /** How many ended intents the history of `growth` has. */
    ended: { type: "string", default: "1000000" },
  },
});

const BENCHES: Readonly<Record<string, () => Promise<BenchResult[]>>> = {
  step: benchStep,
  concurrent: benchConcurrent,
  outbox: benchOutbox,
  latency: benchLatency,
  growth: () => benchGrowth(Number(flags.ended)),
  exit: benchExit,
  temporal: benchTemporal,
};

for (const name of named.length > 0 ? named : Object.keys(BENCHES)) {
  const bench = BENCHES[name];
  if (bench === undefined)
    throw new Error(`There is no bench '${name}'; there are ${Object.keys(BENCHES).join(", ")}.`);
  const results = await bench();
  console.table(results.map((result) => ({ ...result, goal: `${isRate(result) ? "≥" : "≤"} ${result.goal}` })));
  if (flags.json) console.log(JSON.stringify({ bench: name, results }));
}

function isRate({ unit }: BenchResult): boolean {
  return unit.endsWith("/s");
}
