import pg from "pg";
import type { TestProject } from "vitest/node";
import { CountersignSaver } from "../../checkpointers/index.ts";
import { createDatabase, dropDatabase, startPostgres } from "./postgres.ts";

declare module "vitest" {
  interface ProvidedContext {
    serverUrl: string;
    template: string;
  }
}

/** One server for the run, and one migrated database that each test file gets a copy of. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await startPostgres();
  const template = `countersign_template_${process.pid}`;
  const pool = new pg.Pool({ connectionString: await createDatabase(server.url, template) });
  try {
    await new CountersignSaver(pool).setup();
  } catch (error) {
    await pool.end();
    await server.stop();
    throw error;
  }
  await pool.end();
  project.provide("serverUrl", server.url);
  project.provide("template", template);
  return async () => {
    await dropDatabase(server.url, template);
    await server.stop();
  };
}
