import { carryingOut } from "./conformance/carrying-out.ts";
import { outside } from "./conformance/outside.ts";
import { sharing } from "./conformance/sharing.ts";
import { unknown } from "./conformance/unknown.ts";
import type { BackendCase } from "./conformance/world.ts";

export type { BackendCase, BackendUnderTest } from "./conformance/world.ts";

/**
 * What a {@link DurableBackend} has to keep, as cases that try to break it. Both backends that ship
 * pass them all; run them over your own with whatever test runner you have:
 *
 * ```ts
 * for (const { name, run } of backendConformance) it(name, () => run({ pool, backend: () => mine() }));
 * ```
 */
export const backendConformance: readonly BackendCase[] = [...carryingOut, ...unknown, ...outside, ...sharing];
