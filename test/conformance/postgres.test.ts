import { type BackendUnderTest, backendConformance } from "countersign/testing";
import { it } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { testDatabase } from "../support/database.ts";
import { spawnConformance } from "../support/spawn-conformance.ts";

const { pool, url } = await testDatabase();

const under: BackendUnderTest = { pool, backend: () => postgres(), spawn: spawnConformance(url) };

for (const { name, run } of backendConformance) it(`postgres ${name}`, () => run(under));
