import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it, vi } from "vitest";
import { postgres } from "../../src/backends/postgres/index.ts";
import type { DatabaseSource } from "../../src/database/client.ts";
import { pglite } from "../../src/database/pglite.ts";
import { type Countersign, type CountersignOptions, countersign } from "../../src/index.ts";
import { graphOf, letter, onlyOne, sent } from "../support/requests.ts";

// A first open takes seconds, and more on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const graph = graphOf(letter("letter.one"));
const input = { letter: { to: "a@example.org", text: "hello" } } as never;
const mia = { id: "mia", roles: ["manager"] };

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function open(database: DatabaseSource, options: Partial<CountersignOptions> = {}): Promise<Countersign> {
  const cs = await countersign({ database, graphs: [graph], backend: postgres(), ...options });
  cleanups.push(() => cs.close());
  return cs;
}

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "countersign-pglite-"));
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

interface Line {
  readonly opened?: boolean;
  readonly pid?: number;
  readonly code?: string;
  readonly facts?: Record<string, unknown>;
  readonly started?: string;
  readonly text?: string;
}

/** Another process that opens the folder; its lines as they come. */
function otherProcess(folder: string): { readonly process: ChildProcess; readonly lines: AsyncIterableIterator<Line> } {
  const script = fileURLToPath(new URL("../support/pglite-process.ts", import.meta.url));
  const child = spawn(process.execPath, ["--import", "tsx", script, folder], { stdio: ["ignore", "pipe", "inherit"] });
  cleanups.push(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    process: child,
    lines: (async function* () {
      for await (const line of { [Symbol.asyncIterator]: () => lines }) yield JSON.parse(line) as Line;
    })(),
  };
}

async function firstLine(lines: AsyncIterableIterator<Line>): Promise<Line> {
  return (await lines.next()).value as Line;
}

describe("PGlite", () => {
  it("carries a whole durable life in memory", async () => {
    const cs = await open(pglite());
    const { pending, threadId } = await cs.start(graph, input);
    const { id, digest } = onlyOne(pending);
    await cs.approve(id, { by: mia, digest });
    await cs.work({ until: "idle" });
    expect((await cs.result(threadId)).output).toMatchObject({ outcome: { status: "succeeded" } });
    expect(sent.filter(({ key }) => key === id)).toHaveLength(1);
    expect(await cs.audit.verify()).toEqual([]);
  });

  it("wakes a working process up by itself, from approval to result", async () => {
    const cs = await open(pglite(), { pollIntervalMs: 60_000 });
    const stop = new AbortController();
    const working = cs.work({ signal: stop.signal });
    const { pending, threadId } = await cs.start(graph, input);
    const { id, digest } = onlyOne(pending);
    await cs.edit(id, { text: "edited" }, { by: mia, digest });
    expect((await cs.result(threadId)).output).toMatchObject({ outcome: { input: { text: "edited" } } });
    stop.abort();
    await working;
  });

  it("forks a thread in one transaction, as Postgres does", async () => {
    const cs = await open(pglite());
    const { pending, threadId } = await cs.start(graph, input);
    const { checkpointId } = await cs.state(threadId);

    expect(await cs.fork(threadId, { checkpointId })).toBe("waiting");

    expect(await cs.intent(onlyOne(pending).id)).toMatchObject({ status: "cancelled" });
    expect(onlyOne(await cs.pending({ threadId })).id).not.toBe(onlyOne(pending).id);
  });

  it("in memory is a database for each handle", async () => {
    const [one, other] = [await open(pglite()), await open(pglite())];
    await one.start(graph, input);
    expect(await other.pending()).toEqual([]);
  });

  it("guards its rows as Postgres does: nothing runs without its approval", async () => {
    const cs = await open(pglite());
    const { pending } = await cs.start(graph, input);
    const { id, digest } = onlyOne(pending);
    await expect(cs.approve(id, { by: { id: "ian", roles: [] }, digest })).rejects.toMatchObject({
      code: "DECISION_NOT_ALLOWED",
    });
    await cs.work({ until: "idle" });
    expect(sent.filter(({ key }) => key === id)).toEqual([]);
  });

  it("refuses to cancel what has ended or never was, and goes on", async () => {
    const cs = await open(pglite());
    const { threadId } = await cs.start(graph, input);
    await cs.cancel(threadId, { by: mia });
    await expect(cs.cancel(threadId, { by: mia })).rejects.toMatchObject({ code: "THREAD_STATE" });
    await expect(cs.cancel("nobody", { by: mia })).rejects.toMatchObject({ code: "THREAD_NOT_FOUND" });
    expect(await cs.pending()).toEqual([]);
  });

  it("in a folder goes on after it was closed, at each step of a life", async () => {
    const folder = join(temporaryFolder(), "deeper", "data");
    const first = await open(pglite(folder));
    const { threadId } = await first.start(graph, input);
    await first.close();

    const second = await open(pglite(folder));
    const { id, digest } = onlyOne(await second.pending({ threadId }));
    await second.approve(id, { by: mia, digest });
    await second.close();

    const third = await open(pglite(folder));
    await third.work({ until: "idle" });
    expect((await third.result(threadId)).status).toBe("completed");
    expect(sent.filter(({ key }) => key === id)).toHaveLength(1);
    expect(await third.audit.verify()).toEqual([]);
  });
});

describe("a folder that is open", () => {
  it("is refused to a second process, which is told who has it", async () => {
    const folder = temporaryFolder();
    const cs = await open(pglite(folder));
    await cs.start(graph, input);
    const refused = await firstLine(otherProcess(folder).lines);
    expect(refused).toEqual({
      opened: false,
      code: "DATABASE_LOCKED",
      facts: { folder, owner: `pid ${process.pid}` },
    });
    expect(await cs.pending()).toHaveLength(1);
  });

  it("is refused to this process, too, and free again once it is closed", async () => {
    const folder = temporaryFolder();
    const cs = await open(pglite(folder));
    await expect(open(pglite(folder))).rejects.toMatchObject({ code: "DATABASE_LOCKED" });
    await expect(open(pglite(join(folder, "..", folder.split("/").at(-1) ?? "")))).rejects.toMatchObject({
      code: "DATABASE_LOCKED",
    });
    await cs.close();
    await open(pglite(folder));
  });

  it("is refused by every other name that it has: two paths to one folder are one database", async () => {
    const parent = temporaryFolder();
    const folder = join(parent, "data");
    const elsewhere = temporaryFolder();
    symlinkSync(parent, join(elsewhere, "parent"));
    symlinkSync(folder, join(elsewhere, "data"));
    await open(pglite(folder));
    for (const name of [join(elsewhere, "parent", "data"), join(elsewhere, "data")]) {
      await expect(open(pglite(name))).rejects.toMatchObject({ code: "DATABASE_LOCKED" });
    }
  });

  it("is refused wherever it is mounted: the lock lies in the folder, not beside it", async () => {
    const parent = temporaryFolder();
    const [here, there] = [join(parent, "here"), join(parent, "there")];
    await open(pglite(here));
    // A second container that mounts the same volume elsewhere sees the folder, and nothing beside it.
    renameSync(here, there);
    try {
      await expect(open(pglite(there))).rejects.toMatchObject({ code: "DATABASE_LOCKED" });
    } finally {
      renameSync(there, here);
    }
  });

  it("is let go when the start fails for another reason", async () => {
    const folder = temporaryFolder();
    await expect(open(pglite(folder), { graphs: [graph, graph] })).rejects.toMatchObject({
      code: "DEFINITION_INVALID",
    });
    await open(pglite(folder));
  });
});

describe("after a SIGKILL of its owner", () => {
  it("the folder is free at once, and everything that was acknowledged is there", async () => {
    const folder = temporaryFolder();
    const owner = otherProcess(folder);
    expect(await firstLine(owner.lines)).toEqual({ opened: true, pid: owner.process.pid });
    await expect(open(pglite(folder))).rejects.toMatchObject({
      code: "DATABASE_LOCKED",
      facts: { owner: `pid ${owner.process.pid}` },
    });

    const acknowledged: Line[] = [];
    for await (const line of owner.lines) {
      acknowledged.push(line);
      if (acknowledged.length === 25) owner.process.kill("SIGKILL");
    }
    if (owner.process.signalCode === null) await once(owner.process, "exit");

    const cs = await open(pglite(folder));
    expect(acknowledged.length).toBeGreaterThanOrEqual(25);
    for (const { started, text } of acknowledged) {
      const intent = onlyOne(await cs.pending({ threadId: String(started) }));
      expect(intent.payload).toMatchObject({ text });
    }
    expect(await cs.audit.verify()).toEqual([]);
    const { id, digest, threadId } = onlyOne(await cs.pending({ threadId: String(acknowledged[0]?.started) }));
    await cs.approve(id, { by: mia, digest });
    await cs.work({ until: "idle" });
    expect((await cs.result(threadId)).status).toBe("completed");
  });
});
