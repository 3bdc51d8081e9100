import { backendConformance } from "countersign/testing";
import { it } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { testDatabase } from "../support/database.ts";

const { pool } = await testDatabase();

it.each([...backendConformance])("postgres $name", ({ run }) => run({ pool, backend: () => postgres() }));
