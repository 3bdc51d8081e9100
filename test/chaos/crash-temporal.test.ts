import { describe, expect, it } from "vitest";
import { bundle } from "../../crash/bundle.ts";
import { crash } from "../../crash/run.ts";
import { SABOTAGES } from "../../crash/sabotages.ts";

/*
 * Short runs of `npm run crash -- --backend temporal`: the whole, with Temporal and the database killed
 * beside the processes, and one for each way to break on purpose what Temporal's part is.
 */
const ON_TEMPORAL = { backend: "temporal", database: "embedded", seed: 7 } as const;

it("names a failpoint at each step between the outbox, Temporal and the handler", async () => {
  const { failpoints } = await bundle("temporal");
  expect([...new Set(failpoints.map((name) => name.split(".")[0]))]).toEqual([
    "call",
    "checkpoint",
    "claim",
    "compensation",
    "decision",
    "delivery",
    "hand-over",
    "inquiry",
    "renewal",
    "rescue",
    "response",
    "restart",
    "settle",
    "signal",
    "start",
  ]);
});

describe("processes killed together with Temporal and the database", () => {
  it("lose nothing, double nothing, and leave nothing behind", async () => {
    const report = await crash({ ...ON_TEMPORAL, kills: 25, killDatabase: true, killTemporal: true });
    expect(report.findings).toEqual([]);
    expect(report.kills).toBeGreaterThanOrEqual(25);
    expect(report.intents).toBeGreaterThan(0);
    expect(report.databaseKills).toBeGreaterThan(0);
    expect(report.temporalKills).toBeGreaterThan(0);
  }, 600_000);
});

describe("a guarantee of Temporal's part that is broken on purpose is noticed", () => {
  it.each(SABOTAGES.filter(({ backend }) => backend === "temporal"))(
    "$name: $breaks",
    async (sabotage) => {
      const report = await crash({ ...ON_TEMPORAL, kills: 8, killDatabase: false, sabotage, restMs: 15_000 });
      expect(report.findings.filter(({ failure }) => failure === sabotage.shows).length).toBeGreaterThan(0);
    },
    600_000,
  );
});
