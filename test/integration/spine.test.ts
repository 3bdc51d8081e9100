import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { expect, it } from "vitest";
import { z } from "zod";
import { postgres } from "../../src/backends/postgres/index.ts";
import { commit, countersign, defineCommitment, defineGraph } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";

const { pool } = await testDatabase();

it("carries a proposal through approval and execution back to the graph", async () => {
  const calls: string[] = [];
  const send = defineCommitment({
    name: "mail.send",
    version: 1,
    sideEffectClass: "external_message",
    approvalClass: "A1",
    reversibilityClass: "R2",
    sensitivityClass: "S1",
    input: z.object({ to: z.string() }),
    output: z.object({ messageId: z.string() }),
    execute: async (input, { idempotencyKey }) => {
      calls.push(`${input.to} ${idempotencyKey}`);
      return { messageId: "m-1" };
    },
  });
  const State = Annotation.Root({ to: Annotation<string>, messageId: Annotation<string> });
  const graph = defineGraph({
    name: "mailer",
    version: 1,
    durability: "durable",
    commitments: [send],
    graph: new StateGraph(State)
      .addNode("send", async (state) => {
        const outcome = await commit(send, { to: state.to });
        return outcome.status === "succeeded" ? { messageId: outcome.output.messageId } : {};
      })
      .addEdge(START, "send")
      .addEdge("send", END),
  });
  await using cs = await countersign({ database: pool, graphs: [graph], backend: postgres() });
  const run = await cs.start(graph, { to: "a@example.org" }, { threadId: "t-1" });
  expect(run.error).toBeNull();
  expect(run.status).toBe("waiting");
  const [intent] = run.pending;
  if (intent === undefined) throw new Error("nothing is pending");
  await cs.approve(intent.id, { by: { id: "mia", roles: ["manager"] }, digest: intent.digest });
  await cs.work({ until: "idle" });
  const result = await cs.result(run.threadId);
  expect(result).toMatchObject({ status: "completed", output: { messageId: "m-1" } });
  expect(calls).toEqual([`a@example.org ${intent.id}`]);
  expect(await cs.audit.verify()).toEqual([]);
  expect((await cs.audit.list("t-1")).map((row) => row.action)).toEqual([
    "thread.started",
    "intent.recorded",
    "decision.approved",
    "intent.claimed",
    "intent.succeeded",
    "thread.completed",
  ]);
});
