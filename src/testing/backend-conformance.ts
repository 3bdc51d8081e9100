import { carryingOut } from "./conformance/carrying-out.ts";
import { killed } from "./conformance/killed.ts";
import { outside } from "./conformance/outside.ts";
import { sharing } from "./conformance/sharing.ts";
import { unknown } from "./conformance/unknown.ts";
import type { BackendCase } from "./conformance/world.ts";

export { conformanceProcess } from "./conformance/killed.ts";
export type { BackendCase, BackendUnderTest, ConformanceChild } from "./conformance/world.ts";

/**
 * What a {@link DurableBackend} has to keep, as cases that try to break it. Both backends that ship
 * pass them all; run them over your own with whatever test runner you have:
 *
 * ```ts
 * for (const { name, run } of backendConformance) it(name, () => run({ pool, backend, spawn }));
 * ```
 *
 * with, for the cases that kill a process, a script beside it:
 *
 * ```ts
 * const backend = (scope: string) => mine({ queue: scope });
 * await conformanceProcess(process.argv[2], { pool, backend });
 * ```
 */
export const backendConformance: readonly BackendCase[] = [
  ...carryingOut,
  ...unknown,
  ...outside,
  ...sharing,
  ...killed,
];
