import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type Approver,
  actionClassOf,
  assertConsistent,
  type Classes,
  isFulfilled,
  mayApproveOwn,
  type Requirement,
  requirementOf,
} from "../../src/policy.ts";

const APPROVAL = ["A0", "A1", "A2", "A3"] as const;
const REVERSIBILITY = ["R0", "R1", "R2", "R3"] as const;
const SENSITIVITY = ["S0", "S1", "S2", "S3"] as const;
const ACTION = ["auto", "gated", "forbidden"] as const;
const SIDE_EFFECT = ["none", "internal_write", "external_message", "external_commitment"] as const;

const everyCombination: readonly Classes[] = APPROVAL.flatMap((approvalClass) =>
  REVERSIBILITY.flatMap((reversibilityClass) =>
    SENSITIVITY.flatMap((sensitivityClass) =>
      ACTION.flatMap((actionClass) =>
        SIDE_EFFECT.map((sideEffectClass) => ({
          approvalClass,
          reversibilityClass,
          sensitivityClass,
          actionClass,
          sideEffectClass,
        })),
      ),
    ),
  ),
);

const classes = (changes: Partial<Classes>): Classes => ({
  sideEffectClass: "internal_write",
  approvalClass: "A0",
  reversibilityClass: "R0",
  sensitivityClass: "S0",
  actionClass: "auto",
  ...changes,
});

const nameOf = (of: Classes): string => Object.values(of).join("/");

describe("requirementOf", () => {
  it.each([
    ["A0", 0, []],
    ["A1", 1, [["manager", "lead", "head", "executive", "board"]]],
    ["A2", 2, [["head"], ["legal", "finance"]]],
    [
      "A3",
      2,
      [
        ["executive", "board"],
        ["executive", "board"],
      ],
    ],
  ] as const)("asks for the people that %s stands for", (approvalClass, minApprovers, roles) => {
    expect(requirementOf(classes({ approvalClass }))).toEqual({ minApprovers, roles });
  });

  it("never lets R2 or R3 run without a person, whatever the other classes say (rule 1)", () => {
    const withoutPerson = everyCombination
      .filter(({ reversibilityClass }) => reversibilityClass === "R2" || reversibilityClass === "R3")
      .filter((of) => requirementOf(of).minApprovers < 1);
    expect(withoutPerson.map(nameOf)).toEqual([]);
  });

  it("never lets class B or C run without a person, whatever the other classes say (rule 2)", () => {
    const withoutPerson = everyCombination
      .filter(({ actionClass }) => actionClass !== "auto")
      .filter((of) => requirementOf(of).minApprovers < 1);
    expect(withoutPerson.map(nameOf)).toEqual([]);
  });

  it("lets the strictest of the classes win, in every combination (rule 10)", () => {
    const byApproval = { A0: 0, A1: 1, A2: 2, A3: 2 };
    const byReversibility = { R0: 0, R1: 0, R2: 1, R3: 1 };
    const byAction = { auto: 0, gated: 1, forbidden: 1 };
    for (const of of everyCombination) {
      const strictest = Math.max(
        byApproval[of.approvalClass],
        byReversibility[of.reversibilityClass],
        byAction[of.actionClass],
      );
      expect(requirementOf(of).minApprovers, nameOf(of)).toBe(strictest);
    }
  });

  it("asks nobody only for A0 with R0 or R1 and class A", () => {
    const free = everyCombination.filter((of) => requirementOf(of).minApprovers === 0);
    expect(new Set(free.map((of) => `${of.approvalClass}/${of.reversibilityClass}/${of.actionClass}`))).toEqual(
      new Set(["A0/R0/auto", "A0/R1/auto"]),
    );
  });

  it("puts the organisation's own roles in place of the default ones, and asks for a person each", () => {
    const roles = [["cfo"], ["counsel"], ["ceo"]];
    expect(requirementOf(classes({ approvalClass: "A1" }), { roles })).toEqual({ minApprovers: 3, roles });
  });

  it("lets a commitment raise the number of people and never lower it", () => {
    expect(requirementOf(classes({ approvalClass: "A2" }), { minApprovers: 4 }).minApprovers).toBe(4);
    expect(requirementOf(classes({ approvalClass: "A2" }), { minApprovers: 1 }).minApprovers).toBe(2);
    expect(requirementOf(classes({ approvalClass: "A2" }), { minApprovers: 0, roles: [] }).minApprovers).toBe(2);
    expect(requirementOf(classes({ reversibilityClass: "R3" }), { minApprovers: 0, roles: [] }).minApprovers).toBe(1);
  });
});

describe("assertConsistent", () => {
  it.each([
    ["an external effect that is not gated", { sideEffectClass: "external_message", actionClass: "auto" }],
    [
      "an external commitment that is not R3",
      {
        sideEffectClass: "external_commitment",
        actionClass: "gated",
        approvalClass: "A3",
        reversibilityClass: "R2",
      },
    ],
    ["A0 with R2", { reversibilityClass: "R2" }],
    ["A0 with R3", { reversibilityClass: "R3" }],
    ["A0 with class B", { actionClass: "gated" }],
    ["A0 with class C", { actionClass: "forbidden" }],
  ] as const)("refuses %s", (_name, changes) => {
    expect(() => assertConsistent(classes(changes), "It")).toThrow(
      expect.objectContaining({ code: "DEFINITION_INVALID" }),
    );
  });

  it("accepts exactly the declarations that do not contradict themselves", () => {
    const accepted = everyCombination.filter((of) => {
      try {
        assertConsistent(of, "It");
        return true;
      } catch {
        return false;
      }
    });
    const consistent = everyCombination.filter((of) => {
      const external = of.sideEffectClass === "external_message" || of.sideEffectClass === "external_commitment";
      const grave = of.reversibilityClass === "R2" || of.reversibilityClass === "R3" || of.actionClass !== "auto";
      if (external && of.actionClass === "auto") return false;
      if (of.sideEffectClass === "external_commitment" && of.reversibilityClass !== "R3") return false;
      return !(of.approvalClass === "A0" && grave);
    });
    expect(accepted.map(nameOf)).toEqual(consistent.map(nameOf));
  });
});

it("makes every external effect class B, and nothing else", () => {
  expect(SIDE_EFFECT.map((sideEffectClass) => actionClassOf(sideEffectClass))).toEqual([
    "auto",
    "auto",
    "gated",
    "gated",
  ]);
});

it("lets the proposer approve their own proposal below A2 only (rule 7)", () => {
  expect(APPROVAL.filter((approvalClass) => mayApproveOwn(approvalClass))).toEqual(["A0", "A1"]);
});

describe("isFulfilled", () => {
  const requirement = (minApprovers: number, ...roles: string[][]): Requirement => ({ minApprovers, roles });
  const person = (id: string, ...roles: string[]): Approver => ({ id, roles });

  it("needs as many people as it says, also without roles", () => {
    expect(isFulfilled(requirement(2), [person("ann")])).toBe(false);
    expect(isFulfilled(requirement(2), [person("ann"), person("bob")])).toBe(true);
  });

  it("counts one person once, however often they are listed", () => {
    expect(isFulfilled(requirement(2), [person("ann"), person("ann")])).toBe(false);
  });

  it("does not let one person with both roles fill two seats", () => {
    const twoSeats = requirement(2, ["head"], ["legal"]);
    expect(isFulfilled(twoSeats, [person("ann", "head", "legal")])).toBe(false);
    expect(isFulfilled(twoSeats, [person("ann", "head", "legal"), person("bob")])).toBe(false);
  });

  it("moves people between seats until all are filled", () => {
    const twoSeats = requirement(2, ["head"], ["legal"]);
    // Taken in this order, ann would sit on the only seat that bob can have.
    expect(isFulfilled(twoSeats, [person("ann", "head", "legal"), person("bob", "head")])).toBe(true);
    expect(isFulfilled(twoSeats, [person("bob", "head"), person("cay", "head")])).toBe(false);
  });

  it("never fills a seat that names no role", () => {
    expect(isFulfilled(requirement(1, []), [person("ann", "head")])).toBe(false);
  });

  it("agrees with trying every seating of every person", () => {
    const role = fc.constantFrom("head", "legal", "finance", "board");
    const people = fc.array(
      fc.record({ id: fc.constantFrom("ann", "bob", "cay", "dee", "eve"), roles: fc.uniqueArray(role) }),
      { maxLength: 5 },
    );
    const asked = fc.record({
      minApprovers: fc.nat({ max: 4 }),
      roles: fc.array(fc.uniqueArray(role, { minLength: 1, maxLength: 2 }), { maxLength: 4 }),
    });
    fc.assert(
      fc.property(asked, people, (wanted, approvers) => {
        expect(isFulfilled(wanted, approvers)).toBe(bruteForce(wanted, approvers));
      }),
      { numRuns: 2_000 },
    );
  });
});

/** Tries every way of giving each seat to somebody, and looks whether one is right. */
function bruteForce({ minApprovers, roles }: Requirement, approvers: readonly Approver[]): boolean {
  if (new Set(approvers.map(({ id }) => id)).size < minApprovers) return false;
  const seatings = roles.reduce<Approver[][]>(
    (all) => all.flatMap((seating) => approvers.map((approver) => [...seating, approver])),
    [[]],
  );
  return seatings.some(
    (seating) =>
      new Set(seating.map(({ id }) => id)).size === roles.length &&
      seating.every((approver, seat) => approver.roles.some((held) => roles[seat]?.includes(held))),
  );
}
