import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hasEnded, TRANSITIONS } from "../../src/intent.ts";
import { CoreLife } from "../support/core-life.ts";
import { type Life, lives } from "../support/intent-commands.ts";
import { type Command, IntentModel, isEdge, STATUSES, type Status } from "../support/intent-model.ts";

/** Lives a life twice, by the model and by the core, and compares them after each command. */
async function liveTwice({ birth, commands }: Life, seen: Set<Status>): Promise<void> {
  const model = new IntentModel(birth);
  const core = new CoreLife(birth);
  for (const command of commands) {
    const before = model.status;
    const said = await ask(core, model, command);
    const counted = model.apply(command);
    // Only decisions and answers are the core's to judge; the rest it allows or forbids.
    if (said !== undefined) expect(said, command.do).toBe(counted ? model.status : "refused");
    if (model.status !== before) expect(TRANSITIONS[before], command.do).toContain(model.status);
    expect(hasEnded(model.status)).toBe(model.ended);
    if (command.do === "replay" && counted) core.forgetDecisions();
    core.intent = {
      ...core.intent,
      status: model.status,
      attempt: model.attempt,
      expiresAt: new Date(model.overdue ? 500 : 2_000),
    };
    // G2: nothing is handed to a worker without the decisions on exactly what it says.
    if (model.status === "runnable" || model.status === "dispatched") expect(model.approved).toBe(true);
    seen.add(model.status);
  }
}

/** What the core says to a command, where it has a say. */
async function ask(core: CoreLife, model: IntentModel, command: Command): Promise<Status | "refused" | undefined> {
  switch (command.do) {
    case "approve":
    case "edit":
    case "reject":
      return core.decide(command) ?? "refused";
    case "settle": {
      if (model.status !== "dispatched") return undefined;
      const { status, reasonCode } = await core.settle(command.answer, command.heard && model.cancelRequested);
      // The row knows of a cancellation that the worker has not heard of: it is not tried again, nor waited for, and
      // without an answer it is possibly done.
      const isGivenUp = status === "runnable" || status === "awaiting_external" || reasonCode === "attempts_spent";
      return model.cancelRequested && isGivenUp ? "cancelled" : status;
    }
    default:
      return undefined;
  }
}

describe("the pure core, beside a model that was written from the design alone", () => {
  it("knows the same moves, pair by pair", () => {
    for (const before of STATUSES) {
      for (const after of STATUSES) {
        expect(TRANSITIONS[before].includes(after), `${before} to ${after}`).toBe(isEdge(before, after));
      }
    }
  });

  // 80,000 lives; the other 20,000 of the 100,000 are those of compensation.test.ts.
  it.each([1, 2, 3, 4])("lives the same 20,000 random lives (part %i)", { timeout: 600_000 }, async () => {
    const seen = new Set<Status>();
    await fc.assert(
      fc.asyncProperty(lives({ maxCommands: 16 }), (life) => liveTwice(life, seen)),
      { numRuns: 20_000 },
    );
    // The lives got everywhere: nothing was compared in vain. `recorded` is left before anybody sees it.
    expect([...seen].sort()).toEqual(STATUSES.filter((status) => status !== "recorded").sort());
  });
});
