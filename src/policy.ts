import { DefinitionError } from "./errors.ts";

/** Who signs off by default: nobody, one manager, two people in distinct roles, executive or board. */
export type ApprovalClass = "A0" | "A1" | "A2" | "A3";
/** How an effect can be undone: automatically, with limited effort, at a cost, not at all. */
export type ReversibilityClass = "R0" | "R1" | "R2" | "R3";
/** What the payload holds: public, internal, confidential, regulated or personal data. */
export type SensitivityClass = "S0" | "S1" | "S2" | "S3";
/** A, B and C on the wire. In TypeScript spelled out, so that it is never mistaken for A0–A3. */
export type ActionClass = "auto" | "gated" | "forbidden";
export type SideEffectClass = "none" | "internal_write" | "external_message" | "external_commitment";
export type ActorType = "human" | "observer_agent" | "recommender_agent" | "executor_system" | "automated_workflow";

/** The classes that every intent carries (`policy.md`, rule 3). */
export interface Classes {
  readonly sideEffectClass: SideEffectClass;
  readonly approvalClass: ApprovalClass;
  readonly reversibilityClass: ReversibilityClass;
  readonly sensitivityClass: SensitivityClass;
  readonly actionClass: ActionClass;
}

/**
 * What must have happened before an intent may run: at least `minApprovers` distinct people
 * approved, and each entry of `roles` is filled by a person of their own who holds one of its names.
 */
export interface Requirement {
  readonly minApprovers: number;
  readonly roles: readonly (readonly string[])[];
}

const BY_APPROVAL_CLASS: Record<ApprovalClass, Requirement> = {
  A0: { minApprovers: 0, roles: [] },
  A1: { minApprovers: 1, roles: [["manager", "lead", "head", "executive", "board"]] },
  A2: { minApprovers: 2, roles: [["head"], ["legal", "finance"]] },
  A3: {
    minApprovers: 2,
    roles: [
      ["executive", "board"],
      ["executive", "board"],
    ],
  },
};

/** The action class that follows from the side effect, unless it is declared stricter. */
export function actionClassOf(sideEffectClass: SideEffectClass): ActionClass {
  return sideEffectClass.startsWith("external_") ? "gated" : "auto";
}

/**
 * Refuses a declaration that contradicts itself (rule 10): A0 with R2 or R3, or with class B;
 * an external commitment that is not R3; an external effect that is not gated.
 */
export function assertConsistent(classes: Classes, subject: string): void {
  const { approvalClass, reversibilityClass, actionClass, sideEffectClass } = classes;
  const refuse = (problem: string, remedy: string): never => {
    throw new DefinitionError(`${subject} contradicts itself: ${problem}`, {
      facts: { approvalClass, reversibilityClass, actionClass, sideEffectClass },
      remedy,
    });
  };
  if (sideEffectClass.startsWith("external_") && actionClass === "auto") {
    refuse("an external effect is always gated", "Leave actionClass out, or say 'gated'.");
  }
  if (sideEffectClass === "external_commitment" && reversibilityClass !== "R3") {
    refuse("an external commitment is R3", "Declare reversibilityClass 'R3'.");
  }
  if (approvalClass === "A0" && needsPerson(classes)) {
    refuse("A0 means nobody signs off, yet its other classes need a person", "Declare A1 or above.");
  }
}

/**
 * The requirement of an intent, from its classes (rules 1, 2 and 10: the strictest wins).
 * `extra.roles` names the organisation's own roles in place of the default ones;
 * `extra.minApprovers` can raise the number of people, never lower it.
 */
export function requirementOf(classes: Classes, extra?: Partial<Requirement>): Requirement {
  const base = BY_APPROVAL_CLASS[classes.approvalClass];
  const roles = extra?.roles ?? base.roles;
  const floor = needsPerson(classes) ? 1 : 0;
  return {
    minApprovers: Math.max(base.minApprovers, extra?.minApprovers ?? 0, roles.length, floor),
    roles,
  };
}

/** A requirement with what one call asks for on top: more people, more roles; never less. */
export function strengthen(requirement: Requirement, asked: Partial<Requirement> = {}): Requirement {
  const roles = [...requirement.roles, ...(asked.roles ?? [])];
  return { roles, minApprovers: Math.max(requirement.minApprovers, asked.minApprovers ?? 0, roles.length) };
}

/** Rules 1 and 2: R2 and R3, and class B, always need a person. */
function needsPerson({ reversibilityClass, actionClass }: Classes): boolean {
  return reversibilityClass === "R2" || reversibilityClass === "R3" || actionClass !== "auto";
}

/** Rule 7: for A2 and above the proposer never approves their own proposal. */
export function mayApproveOwn(approvalClass: ApprovalClass): boolean {
  return approvalClass === "A0" || approvalClass === "A1";
}

/** A person who approved, with the roles that they held when they did. */
export interface Approver {
  readonly id: string;
  readonly roles: readonly string[];
}

/** Whether these approvers fulfil the requirement, each person filling at most one role. */
export function isFulfilled(requirement: Requirement, approvers: readonly Approver[]): boolean {
  const people = new Set(approvers.map((approver) => approver.id)).size;
  return people >= requirement.minApprovers && canFill(requirement.roles, approvers, []);
}

function canFill(roles: Requirement["roles"], approvers: readonly Approver[], used: readonly string[]): boolean {
  const [role, ...rest] = roles;
  if (role === undefined) return true;
  return approvers.some(
    (approver) =>
      !used.includes(approver.id) &&
      approver.roles.some((held) => role.includes(held)) &&
      canFill(rest, approvers, [...used, approver.id]),
  );
}
