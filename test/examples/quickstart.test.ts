import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const quickstart = readFileSync(`${root}/examples/quickstart.ts`, "utf8");

it("stands in the README as it is run here", () => {
  expect(readFileSync(`${root}/README.md`, "utf8")).toContain(quickstart.trim());
});

it("proposes, is edited by a manager, and ends with what was sent", async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", "examples/quickstart.ts"], {
    cwd: root,
  });
  const lines = stdout.trim().split("\n");
  expect(lines[0]).toBe("waiting { to: 'ada@example.org', price: 120 }");
  expect(lines[1]).toMatch(/^sending ada@example.org an offer at 99 \(key [0-9a-f-]{36}\)$/);
  expect(lines[2]).toContain("sentAt: 99");
  expect(lines).toHaveLength(3);
});
