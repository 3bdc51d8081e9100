import { parseArgs } from "node:util";
import { BACKENDS, type BackendName } from "./backends.ts";
import { crash } from "./run.ts";
import { SABOTAGES } from "./sabotages.ts";
import { FAILURES } from "./verify.ts";

const USAGE = `npm run crash -- [--kills N] [--seed S] [--database embedded|URL] [--[no-]kill-database]
                 [--backend ${Object.keys(BACKENDS).join("|")}] [--[no-]kill-temporal]
                 [--sabotage ${SABOTAGES.map(({ name }) => name).join("|")}] [--json]`;

const values = options();
if (values.help) {
  console.log(USAGE);
  process.exit(0);
}

const kills = wholeNumber("kills", values.kills);
const seed = wholeNumber("seed", values.seed);
const sabotage = SABOTAGES.find(({ name }) => name === values.sabotage);
if (values.sabotage !== undefined && sabotage === undefined) refuse(`There is no sabotage '${values.sabotage}'.`);
if (!isBackend(values.backend)) refuse(`There is no backend '${values.backend}'.`);
if (sabotage?.backend !== undefined && sabotage.backend !== values.backend) {
  refuse(`'${sabotage.name}' is a sabotage of --backend ${sabotage.backend}.`);
}
const onTemporal = values.backend === "temporal";
const killDatabase = values["kill-database"] ?? (onTemporal && values.database === "embedded");
const killTemporal = values["kill-temporal"] ?? onTemporal;
if (killTemporal && !onTemporal) refuse("--kill-temporal goes with --backend temporal only.");
if (killDatabase && values.database !== "embedded") {
  refuse("--kill-database stops the run's own server: it goes with --database embedded only.");
}

if (sabotage !== undefined) console.error(`Broken on purpose: ${sabotage.breaks}.`);
const report = await crash({
  kills,
  seed,
  database: values.database,
  backend: values.backend,
  killDatabase,
  killTemporal,
  ...(sabotage === undefined ? {} : { sabotage }),
  onKill: (what) => {
    if (!values.json) console.error(`killed ${what}`);
  },
});

if (!values.json) console.table(Object.fromEntries([...report.places].sort()));
for (const { failure, what } of report.findings.slice(0, 40)) console.error(`${failure}: ${what}`);
const counts = FAILURES.map((failure) => [failure, report.findings.filter((each) => each.failure === failure).length]);
const { databaseKills, temporalKills, threads, intents } = report;
const whole = report.findings.length === 0;
if (!whole) {
  const again = process.argv.slice(2).filter((arg, at, all) => arg !== "--seed" && all[at - 1] !== "--seed");
  console.error(`Replay it with: npm run crash -- ${[...again, "--seed", seed].join(" ")}`);
  console.error(`Ledger, notes and complaints: ${report.dir}`);
}
console.log(
  JSON.stringify({
    ...{ kills: report.kills, databaseKills, temporalKills, threads, intents },
    ...Object.fromEntries(counts),
    seed,
  }),
);
process.exit(whole ? 0 : 1);

function isBackend(name: string): name is BackendName {
  return Object.hasOwn(BACKENDS, name);
}

function wholeNumber(option: string, value: string): number {
  const number = Number(value);
  if (Number.isInteger(number) && number >= 0 && number < 1e9) return number;
  return refuse(`--${option} takes a whole number, not '${value}'.`);
}

function refuse(why: string): never {
  console.error(`${why}\n${USAGE}`);
  process.exit(2);
}

function options() {
  try {
    return parseArgs({
      allowNegative: true,
      options: {
        kills: { type: "string", default: "100" },
        seed: { type: "string", default: String(Date.now() % 1_000_000) },
        database: { type: "string", default: "embedded" },
        backend: { type: "string", default: "postgres" },
        "kill-database": { type: "boolean" },
        "kill-temporal": { type: "boolean" },
        sabotage: { type: "string" },
        json: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    }).values;
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error));
  }
}
