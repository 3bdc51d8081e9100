import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { IntentStatus } from "../../src/index.ts";
import { hasEnded, intentIdOf, TRANSITIONS, workflowKeyOf } from "../../src/intent.ts";
import { outcomeOf } from "../../src/outcome.ts";
import { anIntent } from "../support/intent.ts";

const position = { threadId: "t-1", checkpointNs: "", taskId: "task-1", key: 0 };
const STATUSES = Object.keys(TRANSITIONS) as IntentStatus[];

describe("the id of an intent", () => {
  it("is stable over releases: a deploy finds what it recorded before", () => {
    expect(intentIdOf(position)).toMatchInlineSnapshot(`"c8d8e186-0337-59be-881c-53a2638833a2"`);
    expect(intentIdOf({ ...position, key: "invoice-7" })).toMatchInlineSnapshot(
      `"64bdb37c-a2cb-5175-9d8e-1b5449e4ad9c"`,
    );
  });

  it("is a uuid of version 5", () => {
    expect(intentIdOf(position)).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });

  it("is another one for a key than for an ordinal that reads the same", () => {
    expect(intentIdOf({ ...position, key: "0" })).not.toBe(intentIdOf({ ...position, key: 0 }));
  });

  it("differs in every part of the position, and does not mix neighbouring parts up", () => {
    const text = fc.string({ maxLength: 4 });
    const anywhere = fc.record({
      threadId: text,
      checkpointNs: text,
      taskId: text,
      key: fc.oneof(text, fc.nat({ max: 5 })),
    });
    fc.assert(
      fc.property(anywhere, anywhere, (one, other) => {
        const same = (Object.keys(one) as (keyof typeof one)[]).every((part) => one[part] === other[part]);
        expect(intentIdOf(one) === intentIdOf(other)).toBe(same);
      }),
      {
        numRuns: 1_000,
        examples: [
          [
            { ...position, taskId: "a|b" },
            { ...position, checkpointNs: "a", taskId: "b" },
          ],
        ],
      },
    );
  });
});

describe("TRANSITIONS", () => {
  it("name only known statuses, each once", () => {
    for (const [from, targets] of Object.entries(TRANSITIONS)) {
      expect(new Set(targets).size, from).toBe(targets.length);
      expect(STATUSES, from).toEqual(expect.arrayContaining([...targets]));
      expect(targets, from).not.toContain(from);
    }
  });

  it("let only decisions, claims and recovery lead to execution", () => {
    const into = (status: IntentStatus) => STATUSES.filter((from) => TRANSITIONS[from].includes(status));
    expect(into("dispatched")).toEqual(["runnable"]);
    expect(into("runnable")).toEqual(["recorded", "awaiting_decision", "dispatched", "unknown", "failed"]);
  });

  it("lead nowhere from rejected, expired, cancelled and compensated (G5)", () => {
    expect(STATUSES.filter((status) => TRANSITIONS[status].length === 0)).toEqual([
      "rejected",
      "expired",
      "cancelled",
      "compensated",
    ]);
  });

  it("reach every status from the one in which an intent is recorded", () => {
    const reached = new Set<IntentStatus>(["recorded"]);
    for (const status of reached) for (const next of TRANSITIONS[status]) reached.add(next);
    expect([...reached].sort()).toEqual([...STATUSES].sort());
  });
});

it("has ended wherever the graph can go on", () => {
  expect(STATUSES.filter((status) => !hasEnded(status))).toEqual([
    "recorded",
    "awaiting_decision",
    "runnable",
    "dispatched",
    "awaiting_external",
    "unknown",
  ]);
});

it("pins the kind of an intent to a version", () => {
  expect(workflowKeyOf("term-sheet.send", 3)).toBe("term-sheet.send@3");
});

describe("the outcome of an intent", () => {
  const ended = (status: IntentStatus, changes = {}) =>
    outcomeOf(anIntent({ id: "i-1", status, payload: { to: "b" }, output: { id: "m" }, ...changes }));
  const common = { intentId: "i-1", input: { to: "b" } };
  const error = { code: "X", message: "why" };

  it("says how it ended, with the input as it was executed", () => {
    expect(ended("succeeded")).toEqual({ ...common, status: "succeeded", output: { id: "m" } });
    expect(ended("rejected", { error })).toEqual({ ...common, status: "rejected", reason: "why" });
    expect(ended("rejected")).toEqual({ ...common, status: "rejected", reason: null });
    expect(ended("failed", { error })).toEqual({ ...common, status: "failed", error });
    expect(ended("failed")).toEqual({ ...common, status: "failed", error: { code: "UNKNOWN", message: "" } });
    expect(ended("expired")).toEqual({ ...common, status: "expired" });
    expect(ended("cancelled")).toEqual({ ...common, status: "cancelled" });
  });

  it.each(["compensating", "compensated", "compensation_failed"] as const)(
    "stays succeeded for the graph when the effect is %s later: a re-run takes the same path",
    (status) => {
      expect(ended(status)).toMatchObject({ status: "succeeded", output: { id: "m" } });
    },
  );
});
