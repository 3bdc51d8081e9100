import { benchExit } from "./exit.ts";
import type { BenchResult } from "./measure.ts";

const BENCHES: Readonly<Record<string, () => Promise<BenchResult[]>>> = { exit: benchExit };

/* `npm run bench -- [name …] [--json]`: each bench runs us and the peer side by side. */
const args = process.argv.slice(2);
const named = args.filter((arg) => !arg.startsWith("--"));
for (const name of named.length > 0 ? named : Object.keys(BENCHES)) {
  const bench = BENCHES[name];
  if (bench === undefined)
    throw new Error(`There is no bench '${name}'; there are ${Object.keys(BENCHES).join(", ")}.`);
  const results = await bench();
  console.table(results);
  if (args.includes("--json")) console.log(JSON.stringify({ bench: name, results }));
}
