import { benchConcurrent } from "./concurrent.ts";
import { benchExit } from "./exit.ts";
import type { BenchResult } from "./measure.ts";
import { benchOutbox } from "./outbox.ts";
import { benchStep } from "./step.ts";

const BENCHES: Readonly<Record<string, () => Promise<BenchResult[]>>> = {
  step: benchStep,
  concurrent: benchConcurrent,
  outbox: benchOutbox,
  exit: benchExit,
};

/* `npm run bench -- [name …] [--json]`: each bench runs us and the peer side by side. */
const args = process.argv.slice(2);
const named = args.filter((arg) => !arg.startsWith("--"));
for (const name of named.length > 0 ? named : Object.keys(BENCHES)) {
  const bench = BENCHES[name];
  if (bench === undefined)
    throw new Error(`There is no bench '${name}'; there are ${Object.keys(BENCHES).join(", ")}.`);
  const results = await bench();
  console.table(results.map((result) => ({ ...result, goal: `${isRate(result) ? "≥" : "≤"} ${result.goal}` })));
  if (args.includes("--json")) console.log(JSON.stringify({ bench: name, results }));
}

function isRate({ unit }: BenchResult): boolean {
  return unit.endsWith("/s");
}
