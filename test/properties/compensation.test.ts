import fc from "fast-check";
import { expect, it } from "vitest";
import { nextCompensationMove } from "../../src/compensation.ts";
import type { ExecutionIntent, IntentStatus } from "../../src/index.ts";
import { anIntent } from "../support/intent.ts";

/** An effect when the undoing begins, and what will become of the call that undoes it. */
interface Done {
  readonly status: IntentStatus;
  readonly compensable: boolean;
  /** It was pending at the provider when it ended. */
  readonly external: boolean;
  readonly undo: "succeeded" | "failed";
  /** A step that failed is tried again by hand, and succeeds. */
  readonly replayed: boolean;
}

const done: fc.Arbitrary<Done> = fc.record({
  status: fc.constantFrom("succeeded", "failed", "awaiting_decision", "runnable", "awaiting_external", "expired"),
  compensable: fc.boolean(),
  external: fc.boolean(),
  undo: fc.constantFrom("succeeded", "failed"),
  replayed: fc.boolean(),
});

const NOW = 1_000;

/** The rows of a thread, and the sweeper's moves on them. It keeps nothing but the rows, as after a crash. */
class Thread {
  rows: ExecutionIntent[];
  readonly effects: readonly Done[];
  /** Effects by number, in the order in which their undoing began. */
  readonly begun: number[] = [];
  #time = NOW;

  constructor(effects: readonly Done[]) {
    this.effects = effects;
    this.rows = effects.map(({ status, compensable, external }, n) =>
      anIntent({
        id: `e-${n}`,
        status,
        compensable,
        externalRef: external ? `x-${n}` : null,
        createdAt: new Date(n),
        endedAt: status === "succeeded" || status === "failed" || status === "expired" ? new Date(100 + n) : null,
      }),
    );
    this.rows.push(
      anIntent({
        id: "request",
        kind: "compensation",
        status: "awaiting_external",
        payload: { reason: "no" },
        createdAt: new Date(NOW),
      }),
    );
  }

  /** Makes the next move on rows in any order; false when there is nothing to do but to wait. */
  move(order: (rows: ExecutionIntent[]) => ExecutionIntent[]): boolean {
    const move = nextCompensationMove(order(this.rows));
    switch (move?.kind) {
      case undefined:
      case "wait":
        return false;
      case "cancel":
        for (const id of move.ids) this.#set(id, "cancelled");
        return true;
      case "mark":
        this.#set(move.effect.id, move.status);
        return true;
      case "again":
        this.#set(move.effect.id, "compensating");
        return true;
      case "step":
        this.#begin(move.effect);
        return true;
      case "end":
        this.#set("request", move.status);
        return true;
    }
  }

  #begin(effect: ExecutionIntent): void {
    const n = Number(effect.id.slice(2));
    // The one before has ended: two are never under way.
    expect(this.open).toBeUndefined();
    this.begun.push(n);
    if (effect.status === "succeeded") this.#set(effect.id, "compensating");
    this.rows.push(anIntent({ id: `undo-${n}`, kind: "compensation", compensates: effect.id, status: "runnable" }));
  }

  /** The step that is under way. */
  get open(): ExecutionIntent | undefined {
    return this.rows.find(({ compensates, status }) => compensates !== null && status === "runnable");
  }

  settle(step: ExecutionIntent, status: "succeeded" | "failed" | "runnable"): void {
    this.#set(step.id, status);
  }

  statusOf(id: string): IntentStatus | undefined {
    return this.rows.find((row) => row.id === id)?.status;
  }

  #set(id: string, status: IntentStatus): void {
    this.#time++;
    this.rows = this.rows.map((row) =>
      row.id === id ? { ...row, status, endedAt: row.endedAt ?? new Date(this.#time) } : row,
    );
  }
}

/** Runs it to its end, each step settled as the world will have it. */
function undoAll(thread: Thread, order: (rows: ExecutionIntent[]) => ExecutionIntent[]): void {
  for (let moves = 0; moves < 200; moves++) {
    if (thread.move(order)) continue;
    const { open } = thread;
    if (open === undefined) return;
    const { undo } = thread.effects[Number(open.id.slice(5))] as Done;
    thread.settle(open, undo);
  }
  throw new Error("the compensation never came to an end");
}

/** What is due, from the page and not from the code: done, or given up while it was pending at the provider. */
function isDue({ status, compensable, external }: Done): boolean {
  const leftOpen = ["expired", "awaiting_decision", "runnable", "awaiting_external"].includes(status) && external;
  return compensable && (status === "succeeded" || leftOpen);
}

const ofSucceeded = ({ effects }: Thread): number[] => effects.flatMap((e, n) => (e.status === "succeeded" ? [n] : []));

it("undoes what is due and nothing else, once, the last first, whatever fails, over 20,000 threads", () => {
  const seen = { failed: 0, replayed: 0, cancelled: 0 };
  fc.assert(
    fc.property(fc.array(done, { maxLength: 6, size: "max" }), fc.integer(), (effects, salt) => {
      const thread = new Thread(effects);
      // The database promises no order; the move is the same in any.
      undoAll(thread, (rows) => rows.toSorted((a, b) => hash(a.id, salt) - hash(b.id, salt)));

      const due = effects.flatMap((effect, n) => (isDue(effect) ? [n] : []));
      expect([...thread.begun].sort()).toEqual(due);
      // What was given up for this ended last, and so goes first; within what had succeeded, the last first.
      const succeeded = thread.begun.filter((n) => effects[n]?.status === "succeeded");
      expect(succeeded).toEqual(
        ofSucceeded(thread)
          .filter((n) => due.includes(n))
          .reverse(),
      );

      const failed = due.filter((n) => effects[n]?.undo === "failed");
      expect(thread.statusOf("request")).toBe(failed.length > 0 ? "failed" : "succeeded");
      for (const [n, effect] of effects.entries()) {
        if (["awaiting_decision", "runnable", "awaiting_external"].includes(effect.status)) {
          expect(thread.statusOf(`e-${n}`)).toBe("cancelled");
          seen.cancelled++;
        } else if (effect.status === "succeeded" && due.includes(n)) {
          expect(thread.statusOf(`e-${n}`)).toBe(effect.undo === "failed" ? "compensation_failed" : "compensated");
        } else expect(thread.statusOf(`e-${n}`)).toBe(effect.status);
      }

      for (const n of failed.filter((each) => effects[each]?.replayed)) {
        seen.replayed++;
        const step = thread.rows.find(({ id }) => id === `undo-${n}`) as ExecutionIntent;
        thread.settle(step, "runnable");
        while (thread.move((rows) => rows));
        thread.settle(step, "succeeded");
        while (thread.move((rows) => rows));
        if (effects[n]?.status === "succeeded") expect(thread.statusOf(`e-${n}`)).toBe("compensated");
      }
      seen.failed += failed.length;
    }),
    { numRuns: 20_000 },
  );
  expect(Math.min(...Object.values(seen))).toBeGreaterThan(100);
}, 600_000);

/** Any order of the rows, the same for the same salt. */
function hash(text: string, salt: number): number {
  let value = salt;
  for (const letter of text) value = Math.imul(value ^ letter.charCodeAt(0), 0x01000193);
  return value;
}
