import { describe, expect, it } from "vitest";
import { bundle } from "../../crash/bundle.ts";
import { type CrashReport, crash } from "../../crash/run.ts";
import { SABOTAGES } from "../../crash/sabotages.ts";

/*
 * Short runs of `npm run crash`: the whole, with a database that is killed as well, and one for each way
 * to break a guarantee on purpose, which the harness must notice.
 */
const EMBEDDED = { database: "embedded", killDatabase: false, seed: 7 } as const;

const counted = ({ findings }: CrashReport, failure: string): number =>
  findings.filter((finding) => finding.failure === failure).length;

it("names a failpoint at each step that a crash could fall between", async () => {
  const { failpoints } = await bundle("postgres");
  expect([...new Set(failpoints.map((name) => name.split(".")[0]))]).toEqual([
    "call",
    "checkpoint",
    "claim",
    "compensation",
    "decision",
    "delivery",
    "renewal",
    "response",
    "settle",
  ]);
});

describe("processes killed at failpoints and at random", () => {
  it("lose nothing, double nothing, and leave nothing behind", async () => {
    const report = await crash({ ...EMBEDDED, kills: 40 });
    expect(report.findings).toEqual([]);
    expect(report.kills).toBeGreaterThanOrEqual(40);
    expect(report.intents).toBeGreaterThan(0);
  }, 600_000);

  it("nor while the database is killed with them", async () => {
    const report = await crash({ ...EMBEDDED, kills: 30, killDatabase: true });
    expect(report.findings).toEqual([]);
    expect(report.databaseKills).toBeGreaterThan(1);
  }, 600_000);
});

describe("a guarantee that is broken on purpose is noticed", () => {
  it.each(SABOTAGES.filter(({ backend }) => backend !== "temporal"))(
    "$name: $breaks",
    async (sabotage) => {
      const report = await crash({ ...EMBEDDED, kills: 16, sabotage, restMs: 15_000 });
      expect(counted(report, sabotage.shows)).toBeGreaterThan(0);
    },
    600_000,
  );
});
