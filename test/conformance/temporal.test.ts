import { backendConformance } from "countersign/testing";
import { it } from "vitest";
import { temporal } from "../../src/backends/temporal/index.ts";
import { testDatabase } from "../support/database.ts";
import { testTemporal } from "../support/temporal.ts";

const { pool } = await testDatabase();
const { address } = await testTemporal();

it.each([...backendConformance])("temporal $name", ({ run }) =>
  run({ pool, backend: (taskQueue) => temporal({ address, taskQueue }) }),
);
