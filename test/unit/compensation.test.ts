import { describe, expect, it } from "vitest";
import { nextCompensationMove } from "../../src/compensation.ts";
import type { ExecutionIntent, IntentStatus } from "../../src/index.ts";
import { anIntent } from "../support/intent.ts";

const at = (ms: number): Date => new Date(ms);

/** An effect that can be undone, done at `endedAt`. */
const effect = (id: string, changes: Partial<ExecutionIntent> = {}): ExecutionIntent =>
  anIntent({
    id,
    kind: "effect",
    status: "succeeded",
    compensable: true,
    createdAt: at(1),
    endedAt: at(2),
    ...changes,
  });

/** The step that undoes an effect. */
const step = (of: string, status: IntentStatus, changes: Partial<ExecutionIntent> = {}): ExecutionIntent =>
  anIntent({ id: `undo-${of}`, kind: "compensation", compensates: of, status, createdAt: at(101), ...changes });

/** The request to undo a thread, made at 100; of one `commitAll`, if a group is named. */
const request = (changes: Partial<ExecutionIntent> = {}, group?: string): ExecutionIntent =>
  anIntent({
    id: "request",
    kind: "compensation",
    status: "awaiting_external",
    createdAt: at(100),
    payload: { reason: "rejected", ...(group === undefined ? {} : { group }) },
    ...changes,
  });

/** The next move in a line: what, and which intents it is about. */
function next(...intents: ExecutionIntent[]): string {
  const move = nextCompensationMove(intents);
  if (move === undefined) return "nothing";
  switch (move.kind) {
    case "cancel":
      return `cancel ${move.ids.join(" ")}`;
    case "mark":
      return `mark ${move.effect.id} ${move.status}`;
    case "end":
      return `end ${move.status}`;
    case "wait":
      return "wait";
    default:
      return `${move.kind} ${move.effect.id}`;
  }
}

describe("without an open request to undo", () => {
  it("nothing is undone", () => {
    expect(next()).toBe("nothing");
    expect(next(effect("a"), effect("b", { status: "runnable" }))).toBe("nothing");
    expect(next(effect("a"), request({ status: "succeeded" }))).toBe("nothing");
  });

  it("a step that ended late is marked all the same", () => {
    const ended = request({ status: "failed" });
    expect(next(effect("a", { status: "compensating" }), step("a", "succeeded"), ended)).toBe("mark a compensated");
  });
});

describe("what has not started", () => {
  it.each(["recorded", "awaiting_decision", "runnable", "awaiting_external"] as const)(
    "is given up first, when it is %s",
    (status) => {
      expect(next(effect("a"), effect("b", { status, endedAt: null }), request())).toBe("cancel b");
    },
  );

  it("is given up together, sorted by id, so that two processes lock in one order", () => {
    const open = { status: "awaiting_decision", endedAt: null } as const;
    expect(next(effect("c", open), effect("a", open), effect("b", { ...open, kind: "decision" }), request())).toBe(
      "cancel a b c",
    );
  });

  it("is left alone when it is an event, a timer, or the request itself", () => {
    const waiting = { status: "awaiting_external", endedAt: null } as const;
    expect(
      next(effect("e", { ...waiting, kind: "event" }), effect("t", { ...waiting, kind: "timer" }), request()),
    ).toBe("end succeeded");
  });

  it("is left alone when it was recorded after the request", () => {
    expect(next(effect("a", { status: "runnable", createdAt: at(101) }), request())).toBe("end succeeded");
  });
});

describe("what is under way", () => {
  it.each(["dispatched", "unknown"] as const)("is waited for, when an effect is %s: it is possibly done", (status) => {
    expect(next(effect("a"), effect("b", { status, endedAt: null }), request())).toBe("wait");
  });

  it.each(["runnable", "dispatched", "unknown"] as const)("is waited for, when a step is %s", (status) => {
    const undoing = effect("b", { status: "compensating" });
    expect(next(effect("a"), undoing, step("b", status), request())).toBe("wait");
  });

  it("is not waited for, when it was recorded after the request", () => {
    const later = effect("b", { status: "dispatched", createdAt: at(101), endedAt: null });
    expect(next(effect("a"), later, request())).toBe("step a");
  });
});

describe("steps", () => {
  const first = effect("first", { endedAt: at(10) });
  const second = effect("second", { endedAt: at(20) });
  const third = effect("third", { endedAt: at(30) });

  it("go backwards in the order of completion, one at a time, to the end", () => {
    const undone = { status: "compensated" } as const;
    expect(next(first, third, second, request())).toBe("step third");
    expect(next(first, { ...third, ...undone }, second, step("third", "succeeded"), request())).toBe("step second");
    expect(
      next(
        first,
        { ...third, ...undone },
        { ...second, ...undone },
        step("third", "succeeded"),
        step("second", "succeeded"),
        request(),
      ),
    ).toBe("step first");
  });

  it("go by when an effect ended, not by when it was recorded", () => {
    const slow = effect("slow", { createdAt: at(1), endedAt: at(50) });
    const quick = effect("quick", { createdAt: at(2), endedAt: at(5) });
    expect(next(slow, quick, request())).toBe("step slow");
  });

  it("mark their effect before anything else is done", () => {
    const undoing = effect("third", { status: "compensating", endedAt: at(30) });
    expect(next(first, undoing, step("third", "succeeded"), request())).toBe("mark third compensated");
    expect(next(first, undoing, step("third", "failed"), request())).toBe("mark third compensation_failed");
  });

  it("that failed for good do not stop the earlier ones from being tried", () => {
    const failed = { ...third, status: "compensation_failed" } as const;
    expect(next(first, second, failed, step("third", "failed"), request())).toBe("step second");
  });

  it("skip what cannot be undone, failed, or never happened", () => {
    expect(
      next(
        effect("mitigated", { compensable: false }),
        effect("failed", { status: "failed" }),
        effect("rejected", { status: "rejected" }),
        effect("cancelled", { status: "cancelled" }),
        request(),
      ),
    ).toBe("end succeeded");
  });

  it("include what was given up while it was pending at the provider: it is possibly done (rule 16)", () => {
    const pending = effect("pending", { status: "cancelled", externalRef: "ref-1" });
    expect(next(pending, request())).toBe("step pending");
    expect(next(pending, step("pending", "succeeded"), request())).toBe("end succeeded");
    expect(next({ ...pending, compensable: false }, request())).toBe("end succeeded");
  });

  it("what ran out of time at the provider was possibly done, too", () => {
    const pending = effect("pending", { status: "expired", externalRef: "ref-1" });
    expect(next(pending, request())).toBe("step pending");
    expect(next(pending, step("pending", "succeeded"), request())).toBe("end succeeded");
    expect(next({ ...pending, compensable: false }, request())).toBe("end succeeded");
  });

  it("undo an effect once, whoever asks again", () => {
    const undone = effect("first", { status: "compensated" });
    expect(next(undone, step("first", "succeeded"), request())).toBe("end succeeded");
  });

  it("treat an effect without a noted end as the earliest", () => {
    expect(next(effect("unnoted", { endedAt: null }), first, request())).toBe("step first");
    expect(next(first, effect("unnoted", { endedAt: null }), request())).toBe("step first");
  });
});

describe("the end", () => {
  it("is failed when one step failed for good, and succeeded when all were undone", () => {
    const undone = effect("a", { status: "compensated" });
    const stuck = effect("b", { status: "compensation_failed" });
    expect(next(undone, step("a", "succeeded"), request())).toBe("end succeeded");
    expect(next(undone, stuck, step("a", "succeeded"), step("b", "failed"), request())).toBe("end failed");
  });

  it("does not count a step that belongs to effects which the request does not cover", () => {
    const foreign = effect("b", { status: "compensation_failed", groupId: "other" });
    expect(next(foreign, step("b", "failed"), request({}, "group-1"))).toBe("end succeeded");
  });
});

describe("a failed step that was replayed", () => {
  it("takes its effect back into compensation, also after the request has ended", () => {
    const stuck = effect("a", { status: "compensation_failed" });
    const ended = request({ status: "failed" });
    expect(next(stuck, step("a", "failed"), ended)).toBe("nothing");
    expect(next(stuck, step("a", "runnable"), ended)).toBe("again a");
    expect(next(stuck, step("a", "succeeded"), ended)).toBe("again a");
  });

  it("marks the effect when it ends", () => {
    const undoing = effect("a", { status: "compensating" });
    const ended = request({ status: "failed" });
    expect(next(undoing, step("a", "dispatched"), ended)).toBe("nothing");
    expect(next(undoing, step("a", "succeeded"), ended)).toBe("mark a compensated");
  });
});

describe("a request for one commitAll", () => {
  const ours = { groupId: "group-1" };

  it("undoes what belongs to it and nothing else of the thread", () => {
    const lone = effect("lone", { endedAt: at(50) });
    const other = effect("other", { groupId: "group-2", endedAt: at(40) });
    const member = effect("member", { ...ours, endedAt: at(10) });
    expect(next(lone, other, member, request({}, "group-1"))).toBe("step member");
    expect(next(lone, other, request({}, "group-1"))).toBe("end succeeded");
  });

  it("gives up what belongs to it and has not started, and nothing else", () => {
    const open = { status: "runnable", endedAt: null } as const;
    expect(next(effect("lone", open), effect("member", { ...open, ...ours }), request({}, "group-1"))).toBe(
      "cancel member",
    );
  });

  it("covers the whole thread when its group is null, as the database writes it", () => {
    expect(next(effect("lone"), request({ payload: { reason: "rejected", group: null } }))).toBe("step lone");
  });
});
