import { type BackendUnderTest, backendConformance } from "countersign/testing";
import { it } from "vitest";
import { temporal } from "../../src/backends/temporal/index.ts";
import { testDatabase } from "../support/database.ts";
import { spawnConformance } from "../support/spawn-conformance.ts";
import { testTemporal } from "../support/temporal.ts";

const { pool, url } = await testDatabase();
const { address } = await testTemporal();

const under: BackendUnderTest = {
  pool,
  backend: (taskQueue) => temporal({ address, taskQueue }),
  spawn: spawnConformance(url, address),
};

for (const { name, run } of backendConformance) it(`temporal ${name}`, () => run(under));
