import { readdirSync, readFileSync } from "node:fs";
import { DefaultLogger, Runtime, Worker } from "@temporalio/worker";
import { beforeAll, expect, it } from "vitest";
import { z } from "zod";
import { registeredTypes } from "../../../src/backends/temporal/catalogue.ts";
import { workflowCode } from "../../../src/backends/temporal/workflow-bundle.ts";
import { type AnyCommitment, defineCommitment } from "../../../src/index.ts";

const FOLDER = new URL("histories/", import.meta.url);
const recorded = readdirSync(FOLDER).map((file) => file.replace(/\.json$/, ""));

function historyOf(name: string): unknown {
  return JSON.parse(readFileSync(new URL(`${name}.json`, FOLDER), "utf8"));
}

/** The commitment that a history is of; of it only the name counts here. */
function commitmentOf(name: string): AnyCommitment {
  return defineCommitment({
    name: `history.${name.replace(/\..*$/, "")}`,
    version: 1,
    input: z.unknown(),
    output: z.unknown(),
    sideEffectClass: "internal_write",
    approvalClass: "A0",
    reversibilityClass: "R1",
    sensitivityClass: "S1",
    execute: () => Promise.reject(new Error("A replay calls no handler")),
    compensate: () => Promise.reject(new Error("A replay calls no handler")),
  });
}

let code: string;
beforeAll(async () => {
  Runtime.install({ logger: new DefaultLogger("ERROR") });
  const commitments = recorded.filter((name) => !name.includes(".")).map(commitmentOf);
  code = await workflowCode(registeredTypes({}, commitments));
});

const replay = (workflows: string, name: string) =>
  Worker.runReplayHistory({ workflowBundle: { code: workflows } }, historyOf(name), `replay-${name}`);

it("knows each way that a workflow of ours can take", () => {
  expect(recorded.sort()).toEqual([
    "cancelled",
    "compensated",
    "compensated.compensation",
    "completed-by-webhook",
    "expired",
    "polled",
    "retried-and-failed",
    "succeeded",
    "unknown-and-reconciled",
  ]);
});

it.each(recorded)("replays what a released workflow did: %s", async (name) => {
  await replay(code, name);
});

it.each([
  ["asks another activity first", "succeeded", 'stage("execute")', 'stage("look")'],
  ["does not follow what is pending", "polled", 'stage("follow")', 'stage("look")'],
  ["is deaf to Temporal's cancellation", "cancelled", "intent.stop()", "undefined"],
  ["forgets to expire", "expired", "let waitMs = expiresInMs", "let waitMs = null"],
])("fails the replay of a changed workflow, which %s", async (_what, name, from, to) => {
  const changed = code.replace(from, to);
  expect(changed).not.toBe(code);
  await expect(replay(changed, name)).rejects.toMatchObject({ name: "DeterminismViolationError" });
});
