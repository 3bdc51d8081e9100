import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, expect, it, vi } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import { countersign } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { clockOf, PAST_LEASE_MS, uniqueName } from "../support/effects.ts";
import type { ChildInput } from "../support/killed-child.ts";
import { effectsIn, lifeGraph, type Point } from "../support/killed-life.ts";

const { pool, url } = await testDatabase();
const { later } = clockOf(pool);
const folder = mkdtempSync(join(tmpdir(), "countersign-kill-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const CHILD = fileURLToPath(new URL("../support/killed-child.ts", import.meta.url));

const children: ChildProcess[] = [];
afterEach(() => {
  for (const running of children.splice(0)) running.kill("SIGKILL");
});

/** A process of its own. `said` resolves with the first line that it prints; `ended` with what it ended by. */
function child(input: Omit<ChildInput, "url">) {
  const argument = JSON.stringify({ url, ...input } satisfies ChildInput);
  const running = spawn(process.execPath, ["--import", "tsx", CHILD, argument], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(running);
  const ended = once(running, "exit").then(([code, signal]) => (signal ?? code) as string | number);
  const line = once(createInterface(running.stdout), "line").then(([text]) => text as string);
  const said = Promise.race([line, ended.then((code) => `ended by ${code}`)]);
  return { said, ended, kill: () => running.kill("SIGKILL") };
}

interface Life {
  readonly id: string;
  readonly file: string;
  readonly semantics?: "at-most-once";
}

function newLife(): Life {
  const id = uniqueName("life");
  return { id, file: join(folder, id) };
}

/** A handle in this process, which only looks, or finishes what the dead one left. */
const open = (life: Life) => countersign({ database: pool, graphs: [lifeGraph(life)], backend: postgres() });

async function isRecorded({ id }: Life): Promise<boolean> {
  const { rows } = await pool.query("select from countersign.threads where thread_id = $1", [id]);
  return rows.length === 1;
}

async function expectWholeLife(life: Life): Promise<void> {
  await using cs = await open(life);
  const result = await cs.result(life.id, { signal: AbortSignal.timeout(5_000) });
  expect(result).toMatchObject({ status: "completed", output: { sent: ["prepared", "sent 1", "sent 2"] } });
  const intents = await cs.intents(life.id);
  expect(intents.map((intent) => intent.status)).toEqual(["succeeded", "succeeded"]);
  expect(effectsIn(life.file)).toEqual(intents.map((intent) => intent.idempotencyKey));
  const actions = (await cs.audit.list(life.id)).map((row) => row.action);
  for (const action of ["intent.recorded", "intent.succeeded"]) {
    expect(actions.filter((each) => each === action)).toHaveLength(2);
  }
  expect(await cs.audit.verify({ threadId: life.id })).toEqual([]);
}

it.each<Point>(["in the node", "after the claim", "after the effect", "after the start"])(
  "another process finishes what one left that was killed %s",
  async (stopAt) => {
    const life = newLife();
    const dying = child({ ...life, begin: true, stopAt });
    expect(await dying.said).toBe(stopAt);
    dying.kill();
    expect(await dying.ended).toBe("SIGKILL");
    await later(PAST_LEASE_MS);
    expect(await child(life).ended).toBe(0);
    await expectWholeLife(life);
  },
);

it("another process finishes a thread whose first one was killed before the first checkpoint", async () => {
  const life = newLife();
  const blocker = await pool.connect();
  await blocker.query("begin; lock table countersign.checkpoints in exclusive mode");
  const dying = child({ ...life, begin: true });
  const BLOCKED = "from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
  await vi.waitFor(
    async () => {
      const { rows: blocked } = await pool.query(`select ${BLOCKED}`);
      expect([await isRecorded(life), blocked.length]).toEqual([true, 1]);
    },
    { timeout: 20_000 },
  );
  dying.kill();
  await dying.ended;
  // What the dead process had sent does not arrive any more.
  await pool.query(`select pg_terminate_backend(pid) ${BLOCKED}`);
  await blocker.query("rollback");
  blocker.release();
  await later(PAST_LEASE_MS);
  await using cs = await open(life);
  await cs.work({ until: "idle" });
  await expectWholeLife(life);
});

it("does not send an at-most-once effect again whose process was killed with it under way", async () => {
  for (const stopAt of ["after the claim", "after the effect"] as const) {
    const life = { ...newLife(), semantics: "at-most-once" } as const;
    const dying = child({ ...life, begin: true, stopAt });
    expect(await dying.said).toBe(stopAt);
    dying.kill();
    await dying.ended;
    const done = effectsIn(life.file);
    await later(PAST_LEASE_MS);
    await using cs = await open(life);
    await cs.work({ until: "idle" });
    expect((await cs.intents(life.id)).map((intent) => intent.status)).toEqual(["unknown"]);
    expect(effectsIn(life.file)).toEqual(done);
    expect(done).toHaveLength(stopAt === "after the effect" ? 1 : 0);
  }
});

/** Every so manieth statement; 1 tries them all, which takes minutes. */
const STRIDE = Number(process.env.KILL_STRIDE ?? 6);

it("loses nothing and doubles nothing, at whichever of its statements a process is killed", async () => {
  const said = await child({ ...newLife(), begin: true }).said;
  const statements = Number(said.match(/^idle after (\d+) statements$/)?.[1]);
  expect(statements).toBeGreaterThan(20);
  const lives: Life[] = [];
  let next = 1;
  const killing = async () => {
    for (let dieAtStatement = next; dieAtStatement <= statements; dieAtStatement = next) {
      next += STRIDE;
      const life = newLife();
      // What travels together is a matter of ticks: one of the last statements may not be sent at all.
      const ended = await child({ ...life, begin: true, dieAtStatement }).ended;
      expect(dieAtStatement < statements - 5 ? ["SIGKILL"] : ["SIGKILL", 0]).toContain(ended);
      // At its first statement start() has not recorded anything, and has not returned either.
      if (dieAtStatement > 1 || (await isRecorded(life))) lives.push(life);
    }
  };
  await Promise.all([killing(), killing()]);
  await later(PAST_LEASE_MS);
  expect(lives.length).toBeGreaterThanOrEqual(Math.floor(statements / STRIDE) - 1);
  for (const life of lives) {
    await using cs = await open(life);
    await cs.work({ until: "idle" });
    await expectWholeLife(life);
  }
}, 240_000);
