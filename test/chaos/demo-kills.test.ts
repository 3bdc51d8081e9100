import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { Life } from "../../examples/partner-approval/people.ts";
import { type PlayedLife, playLife } from "../../examples/partner-approval/play-life.ts";
import { readLedgers } from "../../examples/partner-approval/world/read-ledgers.ts";
import { spawnWorld } from "../../examples/partner-approval/world/spawn-world.ts";
import { testDatabase } from "../support/database.ts";

const { url, pool } = await testDatabase();
const dir = mkdtempSync(join(tmpdir(), "countersign-demo-kills-"));
const world = await spawnWorld({ dir });
afterAll(() => {
  world.child.kill();
  rmSync(dir, { recursive: true, force: true });
});

const play = (life: Life, name: string, killAt?: number): Promise<PlayedLife> =>
  playLife(
    { world, database: url, schema: "countersign", threadId: `${life}-${name}`, life },
    new Set(killAt === undefined ? [] : [killAt]),
  );

const ENDS = { accepted: "completed", rejected: "compensated" } as const;
const lives: { life: Life; points: readonly string[] }[] = [];
for (const life of ["accepted", "rejected"] as const) {
  lives.push({ life, points: (await play(life, "unharmed")).points });
}

describe.each(lives)("the $life life of the demo", ({ life, points }) => {
  // Every third point, so that a run stays short; KILL_STRIDE=1 goes through all of them.
  const stride = Number(process.env.KILL_STRIDE ?? 3);
  const numbered = points
    .map((point, index) => ({ point, nth: index + 1 }))
    .filter(({ nth }) => nth % stride === 0 || nth === points.length);

  it.concurrent.each(numbered)(
    "has each effect once when it is killed at point $nth, $point",
    async ({ nth }) => {
      const played = await play(life, `killed-at-${nth}`, nth);

      expect(played.kills).toBe(1);
      expect(played.ended).toMatchObject({ status: ENDS[life], auditHolds: true });
      expect(await effectsOf(`${life}-killed-at-${nth}`)).toEqual(await effectsOf(`${life}-unharmed`));
    },
    180_000,
  );
});

/** What the intents of a thread did outside, by kind, from the ledgers; each key at most once. */
async function effectsOf(threadId: string): Promise<Record<string, number>> {
  const { rows } = await pool.query<{ key: string }>(
    "select idempotency_key as key from countersign.execution_intents where thread_id = $1",
    [threadId],
  );
  const keys = new Set(rows.flatMap(({ key }) => [key, `<${key}@countersign.example>`]));
  const done: Record<string, number> = {};
  for (const { kind, key } of Object.values(readLedgers(dir)).flat()) {
    if (key !== null && keys.has(key)) done[kind] = (done[kind] ?? 0) + 1;
  }
  return done;
}
