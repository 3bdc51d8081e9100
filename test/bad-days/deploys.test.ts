import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import pg from "pg";
import { afterAll, expect, inject, it } from "vitest";
import { z } from "zod";
import { postgres } from "../../src/backends/postgres/index.ts";
import { MIGRATIONS } from "../../src/database/migrations/index.ts";
import { commit, countersign, defineCommitment, defineGraph } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { createDatabase, dropDatabase } from "../support/postgres.ts";

const { pool, url } = await testDatabase();
const PROGRAM = fileURLToPath(new URL("../support/starting-process.ts", import.meta.url));

/** A process that says "ready", opens the database when it is told to, and says how that went. */
function starting(database: string): { readonly child: ChildProcess; readonly lines: AsyncIterator<string> } {
  const child = spawn(process.execPath, ["--import", "tsx", PROGRAM, database], { stdio: ["pipe", "pipe", "inherit"] });
  return { child, lines: createInterface({ input: child.stdout as NodeJS.ReadableStream })[Symbol.asyncIterator]() };
}

it("ten processes that start at once on an empty database migrate it once, and all of them go on", {
  timeout: 90_000,
}, async () => {
  const name = `countersign_ten_${randomUUID().replaceAll("-", "")}`;
  const empty = await createDatabase(inject("serverUrl"), name);
  afterAll(() => dropDatabase(inject("serverUrl"), name));
  const processes = Array.from({ length: 10 }, () => starting(empty));
  const ended = processes.map(({ child }) => once(child, "exit"));
  for (const { lines } of processes) expect((await lines.next()).value).toBe("ready");
  for (const { child } of processes) child.stdin?.write("go\n");
  const said = await Promise.all(processes.map(async ({ lines }) => (await lines.next()).value));
  expect(said).toEqual(processes.map(() => "opened, 0 pending"));
  expect((await Promise.all(ended)).map(([code]) => code)).toEqual(processes.map(() => 0));

  const client = new pg.Client({ connectionString: empty });
  await client.connect();
  const { rows } = await client.query("select version from countersign.migrations order by version");
  await client.end();
  expect(rows.map((row) => row.version)).toEqual(MIGRATIONS.map(({ version }) => version));
});

const State = Annotation.Root({ sent: Annotation<string> });

/** The same graph as two deploys have it: one commitment, whose version and handler are the deploy's. */
function deploy(version: number) {
  const calls: number[] = [];
  const send = defineCommitment({
    name: "offer.send",
    version,
    sideEffectClass: "internal_write",
    approvalClass: "A0",
    reversibilityClass: "R1",
    sensitivityClass: "S1",
    input: z.object({ n: z.number() }),
    output: z.object({ by: z.string() }),
    execute: async ({ n }) => {
      calls.push(n);
      return { by: `v${version}` };
    },
  });
  const graph = defineGraph({
    name: "offers",
    version,
    durability: "durable",
    commitments: [send],
    graph: new StateGraph(State)
      .addNode("send", async () => {
        const outcome = await commit(send, { n: version });
        return { sent: outcome.status === "succeeded" ? outcome.output.by : outcome.status };
      })
      .addEdge(START, "send")
      .addEdge("send", END),
  });
  return { graph, calls };
}

it("an old process beside a new one: each carries out and drives its own version, and neither the other's", async () => {
  const [before, after] = [deploy(1), deploy(2)];
  const options = { database: url, backend: postgres(), pollIntervalMs: 50 };
  await using old = await countersign({ ...options, graphs: [before.graph] });
  await using fresh = await countersign({ ...options, graphs: [after.graph] });
  const stop = new AbortController();
  const working = [old.work({ signal: stop.signal }), fresh.work({ signal: stop.signal })];
  const [a, b] = [await old.start(before.graph, {}), await fresh.start(after.graph, {})];

  // Either may be asked about both: what is in the rows is everybody's.
  expect((await fresh.result(a.threadId)).output).toEqual({ sent: "v1" });
  expect((await old.result(b.threadId)).output).toEqual({ sent: "v2" });
  expect([before.calls, after.calls]).toEqual([[1], [2]]);
  stop.abort();
  await Promise.all(working);
});

it("what only the old process knows waits for it, and a new one that knows both versions takes it over", async () => {
  const [before, after] = [deploy(3), deploy(4)];
  const options = { database: url, backend: postgres() };
  const old = await countersign({ ...options, graphs: [before.graph] });
  const { threadId } = await old.start(before.graph, {});
  await old.close();

  await using fresh = await countersign({ ...options, graphs: [after.graph] });
  await fresh.work({ until: "idle" });
  expect((await fresh.intents(threadId)).map(({ status }) => status)).toEqual(["runnable"]);

  await using both = await countersign({ ...options, graphs: [before.graph, after.graph] });
  await both.work({ until: "idle" });
  expect((await both.result(threadId)).output).toEqual({ sent: "v3" });
});

it("a newer schema: a running process goes on, and one that starts is refused if the change breaks it", async () => {
  const { graph } = deploy(5);
  const options = { database: url, backend: postgres(), graphs: [graph] };
  await using running = await countersign(options);
  const newest = MIGRATIONS.length;
  const migrated = (breaking: boolean) =>
    pool.query("insert into countersign.migrations (version, name, breaking) values ($1, 'from tomorrow', $2)", [
      newest + (breaking ? 2 : 1),
      breaking,
    ]);

  await migrated(false);
  await using beside = await countersign(options);
  const { threadId } = await beside.start(graph, {});
  await running.work({ until: "idle" });
  expect((await beside.result(threadId)).output).toEqual({ sent: "v5" });

  await migrated(true);
  await expect(countersign(options)).rejects.toMatchObject({
    code: "SCHEMA_TOO_NEW",
    facts: { migration: `${newest + 2} from tomorrow`, known: newest },
  });
});
