import { afterAll } from "vitest";
import { startTemporal } from "../../dev/temporal-server/start.ts";

/** A Temporal server for this test file alone, unless one was named; ended when the file is done. */
export async function testTemporal(): Promise<{ readonly address: string }> {
  const server = await startTemporal();
  afterAll(() => server.stop());
  return server;
}
