import { tool } from "@langchain/core/tools";
import { END, entrypoint, START, task } from "@langchain/langgraph";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { commit } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { approveAll, audited, builder, channelsOf, durable, note, open, send } from "../support/traps.ts";

/* The traps that concern which task a commit belongs to: subgraphs (T6), the functional API (T8), tools (T15). */

const { pool } = await testDatabase();

describe("T6: a subgraph without a checkpointer", () => {
  it("cannot commit where the graph calls it by hand: its task ids are new on every pass", async () => {
    const inner = builder()
      .addNode("propose", async () => {
        await commit(send, { to: "a@example.org" });
        return {};
      })
      .addEdge(START, "propose")
      .addEdge("propose", END)
      .compile({ checkpointer: false });
    const graph = durable(
      "t6",
      builder()
        .addNode("outer", async (state, config) => inner.invoke(state, config))
        .addEdge(START, "outer")
        .addEdge("outer", END),
    );
    await using cs = await open(pool, graph);
    const run = await cs.start(graph, {}, { threadId: "t6" });
    expect(run).toMatchObject({ status: "failed", error: { code: "BOUNDARY" } });
    expect(await cs.intents("t6")).toEqual([]);
  });
});

describe("T8: the functional API", () => {
  it("persists a task's result before the entrypoint ends, and does not run the task again", async () => {
    let drafts = 0;
    const draft = task("draft", async (to: string) => `draft ${++drafts} for ${to}`);
    const deliver = task("deliver", async (to: string) => (await commit(send, { to })).status);
    const graph = durable("t8", ({ checkpointer }) =>
      entrypoint({ name: "t8", checkpointer }, async (to: string) => {
        const text = await draft(to);
        return { text, status: await deliver(to) };
      }),
    );
    await using cs = await open(pool, graph);
    const waiting = await cs.start(graph, "a@example.org", { threadId: "t8" });
    expect(waiting.status).toBe("waiting");
    expect(await channelsOf(pool, "t8")).toContain("__return__");
    await approveAll(cs, "t8");
    await cs.work({ until: "idle" });
    expect(await cs.result("t8")).toMatchObject({
      output: { text: "draft 1 for a@example.org", status: "succeeded" },
    });
    expect(drafts).toBe(1);
  });

  it("records an intent for each task, once, although the entrypoint waits with them", async () => {
    const deliver = task("deliver", async (to: string) => (await commit(send, { to })).status);
    const graph = durable("t8-each", ({ checkpointer }) =>
      entrypoint({ name: "t8-each", checkpointer }, (all: string[]) => Promise.all(all.map((to) => deliver(to)))),
    );
    await using cs = await open(pool, graph);
    const run = await cs.start(graph, ["a@example.org", "b@example.org"], { threadId: "t8-each" });
    expect(run.pending.map((intent) => intent.payload)).toEqual(
      expect.arrayContaining([{ to: "a@example.org" }, { to: "b@example.org" }]),
    );
    await approveAll(cs, "t8-each");
    await cs.work({ until: "idle" });
    expect(await cs.result("t8-each")).toMatchObject({ output: ["succeeded", "succeeded"] });
    const intents = await cs.intents("t8-each");
    expect(new Set(intents.map((intent) => intent.taskId)).size).toBe(2);
    expect(await audited(cs, "t8-each")).toMatchObject({ "intent.recorded": 2, "intent.succeeded": 2 });
  });
});

describe("T15: inside a tool, where LangChain hides LangGraph's own context", () => {
  it("starts over with each attempt of a retried node: what the failed one asked for is forgotten", async () => {
    let attempts = 0;
    const remember = tool(async ({ text }) => (await commit(note, { text }, { wait: false })).status, {
      name: "remember",
      description: "Notes something.",
      schema: z.object({ text: z.string() }),
    });
    const graph = durable(
      "t15",
      builder()
        .addNode(
          "work",
          async () => {
            attempts++;
            await remember.invoke({ text: "noted" });
            if (attempts === 1) throw new Error("try again");
            return { log: [(await commit(send, { to: "a@example.org" })).status] };
          },
          { retryPolicy: { maxAttempts: 2, initialInterval: 1, jitter: false, logWarning: false } },
        )
        .addEdge(START, "work")
        .addEdge("work", END),
    );
    await using cs = await open(pool, graph);
    await cs.start(graph, {}, { threadId: "t15" });
    expect((await cs.intents("t15")).map((intent) => intent.commitment).sort()).toEqual(["crm.note", "mail.send"]);
    await approveAll(cs, "t15");
    await cs.work({ until: "idle" });
    expect(await cs.result("t15")).toMatchObject({ status: "completed", output: { log: ["succeeded"] } });
    expect(await audited(cs, "t15")).toMatchObject({ "intent.recorded": 2, "intent.succeeded": 2 });
  });

  it("names the checkpoint of its step in the record", async () => {
    const tell = tool(async ({ to }) => (await commit(send, { to })).status, {
      name: "tell",
      description: "Tells somebody.",
      schema: z.object({ to: z.string() }),
    });
    const graph = durable(
      "t15-checkpoint",
      builder()
        .addNode("work", async () => ({ log: [String(await tell.invoke({ to: "a@example.org" }))] }))
        .addEdge(START, "work")
        .addEdge("work", END),
    );
    await using cs = await open(pool, graph);
    const run = await cs.start(graph, {}, { threadId: "t15-checkpoint" });
    const { checkpointId } = await cs.state("t15-checkpoint");
    expect(run.pending).toMatchObject([{ checkpointId }]);
  });
});
