import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const DEMO = fileURLToPath(new URL("../../examples/partner-approval/demo.ts", import.meta.url));

/** What the demo says of its run, in its last line. */
async function played(backend: "postgres" | "temporal"): Promise<Record<string, unknown>> {
  const args = ["--import", "tsx", DEMO, "--json", "--backend", backend];
  const { stdout } = await promisify(execFile)(process.execPath, args, { maxBuffer: 64 * 1024 * 1024 });
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "") as Record<string, unknown>;
}

it("plays the same two lives on both backends: the same decisions, outcomes and ledgers", async () => {
  const [embedded, orchestrated] = await Promise.all([played("postgres"), played("temporal")]);
  expect(embedded).toMatchObject({ ok: true, backend: "postgres" });
  expect(orchestrated).toEqual({ ...embedded, backend: "temporal" });
}, 900_000);
