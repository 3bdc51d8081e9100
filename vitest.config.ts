import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

// biome-ignore lint/style/noDefaultExport: vitest asks for it
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/global-setup.ts"],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Two at once: the files share one Postgres, and the machines have two cores.
    maxWorkers: 2,
    maxConcurrency: 3,
  },
  // Graphs and examples import the package by its name; in tests that is its sources.
  resolve: {
    alias: [
      { find: /^countersign$/, replacement: at("src/index.ts") },
      { find: /^countersign\/postgres$/, replacement: at("src/backends/postgres/index.ts") },
      { find: /^countersign\/temporal$/, replacement: at("src/backends/temporal/index.ts") },
      { find: /^countersign\/pglite$/, replacement: at("src/database/pglite.ts") },
      { find: /^countersign\/checkpointers$/, replacement: at("checkpointers/index.ts") },
      { find: /^countersign\/graphs$/, replacement: at("graphs/index.ts") },
      { find: /^countersign\/testing$/, replacement: at("src/testing/index.ts") },
    ],
  },
});
