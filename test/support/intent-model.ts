/*
 * The life of an intent, written from design.md §4 and policy.md and from nothing else: the properties
 * compare the core and the database with it. It imports no code of ours on purpose.
 */

export type Status =
  | "recorded"
  | "awaiting_decision"
  | "runnable"
  | "dispatched"
  | "awaiting_external"
  | "unknown"
  | "succeeded"
  | "failed"
  | "rejected"
  | "expired"
  | "cancelled"
  | "compensating"
  | "compensated"
  | "compensation_failed";

/** What a life is born with. */
export interface Birth {
  readonly semantics: "at-least-once" | "at-most-once";
  /** A0: nobody; A1: one manager or head; A2: a head, and somebody of legal or finance. */
  readonly needs: "A0" | "A1" | "A2";
  readonly maxAttempts: number;
}

/** Everybody who may turn up, with what they are. */
export const PEOPLE = {
  mia: ["manager"],
  hana: ["head"],
  hugo: ["head", "legal"],
  lena: ["legal"],
  fred: ["finance"],
  ina: ["intern"],
  /** The proposer, who holds every role there is. */
  pete: ["manager", "head", "legal", "finance"],
} as const satisfies Record<string, readonly string[]>;

export type Person = keyof typeof PEOPLE;
export const PROPOSER: Person = "pete";

/** There are three payloads in these lives: an edit may also go back to an earlier one. */
export type Payload = 0 | 1 | 2;

/** How a handler ends. */
export type Answer = "done" | "unreadable" | "error" | "no for good" | "pending";

export type Command =
  | { readonly do: "approve"; readonly by: Person; readonly sees: Payload }
  | { readonly do: "edit"; readonly by: Person; readonly sees: Payload; readonly to: Payload }
  | { readonly do: "reject"; readonly by: Person; readonly sees: Payload | undefined }
  | { readonly do: "claim" }
  /** `heard`: a cancellation, if there is one, had reached the worker. */
  | { readonly do: "settle"; readonly answer: Answer; readonly heard: boolean }
  /** A worker that lost its lease long ago reports all the same. */
  | { readonly do: "settle late"; readonly answer: Answer }
  | { readonly do: "crash" }
  /** The time runs out that it had. */
  | { readonly do: "deadline" }
  | { readonly do: "expire" }
  | { readonly do: "outside"; readonly says: "done" | "failed"; readonly receipt: boolean }
  | { readonly do: "cancel" }
  | { readonly do: "replay" }
  | { readonly do: "undo"; readonly to: "compensating" | "compensated" | "compensation_failed" };

const FINAL: readonly Status[] = ["rejected", "expired", "cancelled", "compensated"];

/** Where each status may go at all (the picture in design.md §4, with cancellation and replay). */
const EDGES: Readonly<Record<Status, readonly Status[]>> = {
  recorded: ["awaiting_decision", "runnable", "cancelled"],
  awaiting_decision: ["runnable", "succeeded", "rejected", "expired", "cancelled"],
  runnable: ["dispatched", "cancelled"],
  dispatched: ["succeeded", "awaiting_external", "runnable", "unknown", "failed", "cancelled"],
  awaiting_external: ["succeeded", "failed", "expired", "cancelled"],
  unknown: ["succeeded", "runnable", "failed"],
  // A dead letter is replayed: at once, or after people decided on it anew.
  failed: ["runnable", "awaiting_decision"],
  succeeded: ["compensating"],
  compensating: ["compensated", "compensation_failed"],
  compensation_failed: ["compensating"],
  rejected: [],
  expired: [],
  cancelled: [],
  compensated: [],
};

export const STATUSES: readonly Status[] = Object.keys(EDGES) as Status[];

export function isEdge(before: Status, after: Status): boolean {
  return EDGES[before].includes(after);
}

/** One life, as it should go. */
export class IntentModel {
  readonly birth: Birth;
  status: Status;
  payload: Payload = 0;
  attempt = 0;
  cancelRequested = false;
  overdue = false;
  round = 1;
  /** Every status that it had, once more for each change that is on record. */
  readonly trail: Status[];
  #approvals: { readonly by: Person; readonly payload: Payload }[] = [];

  constructor(birth: Birth) {
    this.birth = birth;
    this.status = birth.needs === "A0" ? "runnable" : "awaiting_decision";
    this.trail = [this.status];
  }

  /** The graph may go on. */
  get ended(): boolean {
    return ["succeeded", "failed", "compensating", "compensation_failed", ...FINAL].includes(this.status);
  }

  /** Enough people have said yes to exactly what it says now. */
  get approved(): boolean {
    return this.birth.needs === "A0" || this.#isEnough(this.payload);
  }

  /** Does what the command says, or nothing, and says which. */
  apply(command: Command): boolean {
    switch (command.do) {
      case "approve":
      case "edit":
      case "reject":
        return this.#decide(command);
      case "claim":
        if (this.status !== "runnable") return false;
        this.attempt++;
        return this.#become("dispatched");
      case "settle":
        return this.status === "dispatched" && this.#settle(command.answer);
      case "settle late":
        return false;
      case "crash":
        return this.status === "dispatched" && this.#crash();
      case "deadline":
        if (this.status !== "awaiting_decision" && this.status !== "awaiting_external") return false;
        this.overdue = true;
        return true;
      case "expire":
        return this.overdue && this.#become("expired");
      case "outside":
        return this.#endFromOutside(command.says, command.receipt);
      case "cancel":
        return this.#cancel();
      case "replay":
        return this.status === "failed" && this.#replay();
      case "undo":
        return this.#isUndo(command.to) && this.#become(command.to);
    }
  }

  #become(status: Status): true {
    this.status = status;
    this.trail.push(status);
    if (status !== "awaiting_decision" && status !== "awaiting_external") this.overdue = false;
    return true;
  }

  #decide(command: Extract<Command, { do: "approve" | "edit" | "reject" }>): boolean {
    if (this.status !== "awaiting_decision" || this.overdue) return false;
    if (command.sees !== this.payload && !(command.do === "reject" && command.sees === undefined)) return false;
    if (command.do === "reject") return this.#become("rejected");
    const { by } = command;
    const payload = command.do === "edit" ? command.to : this.payload;
    if (command.do === "edit" && payload === this.payload) return false;
    if (this.#approvals.some((earlier) => earlier.by === by && earlier.payload === payload)) return false;
    if (!this.#mayApprove(by)) return false;
    this.#approvals.push({ by, payload });
    this.payload = payload;
    return this.#become(this.#isEnough(payload) ? "runnable" : "awaiting_decision");
  }

  #mayApprove(by: Person): boolean {
    if (this.birth.needs === "A1") return is(by, "manager", "head");
    return by !== PROPOSER && is(by, "head", "legal", "finance");
  }

  #isEnough(payload: Payload): boolean {
    const people = this.#approvals.filter((approval) => approval.payload === payload).map((approval) => approval.by);
    if (this.birth.needs === "A1") return people.some((by) => is(by, "manager", "head"));
    return people.some((a) => people.some((b) => a !== b && is(a, "head") && is(b, "legal", "finance")));
  }

  #settle(answer: Answer): boolean {
    const once = this.birth.semantics === "at-most-once";
    switch (answer) {
      case "done":
        return this.#become("succeeded");
      case "no for good":
        return this.#become("failed");
      case "pending":
        return this.#become(this.cancelRequested ? "cancelled" : "awaiting_external");
      case "unreadable":
        return this.#become(once ? "unknown" : this.cancelRequested ? "cancelled" : "failed");
      case "error":
        if (once) return this.#become("unknown");
        // What it did all the same is believed above; that nobody knows of more is no failure, but possibly done.
        if (this.cancelRequested) return this.#become("cancelled");
        return this.#become(this.attempt >= this.birth.maxAttempts ? "failed" : "runnable");
    }
  }

  #crash(): boolean {
    if (this.birth.semantics === "at-most-once") return this.#become("unknown");
    if (this.cancelRequested) return this.#become("cancelled");
    return this.#become(this.attempt >= this.birth.maxAttempts ? "failed" : "runnable");
  }

  #endFromOutside(says: "done" | "failed", receipt: boolean): boolean {
    const open = this.status === "dispatched" || this.status === "awaiting_external";
    // What nobody knows is believed with a proof only; that it was not done needs none.
    const settled = this.status === "unknown" && (says === "failed" || receipt);
    if (this.overdue || !(open || settled)) return false;
    return this.#become(says === "done" ? "succeeded" : "failed");
  }

  #cancel(): boolean {
    if (this.status === "dispatched") {
      this.cancelRequested = true;
      return true;
    }
    const unstarted = ["awaiting_decision", "runnable", "awaiting_external"].includes(this.status);
    return unstarted && this.#become("cancelled");
  }

  #replay(): boolean {
    this.attempt = 0;
    this.cancelRequested = false;
    if (this.birth.semantics === "at-least-once") return this.#become("runnable");
    this.round++;
    this.#approvals = [];
    return this.#become(this.birth.needs === "A0" ? "runnable" : "awaiting_decision");
  }

  #isUndo(to: Status): boolean {
    if (to === "compensating") return this.status === "succeeded" || this.status === "compensation_failed";
    return this.status === "compensating";
  }
}

function is(by: Person, ...roles: readonly string[]): boolean {
  return PEOPLE[by].some((role) => roles.includes(role));
}
