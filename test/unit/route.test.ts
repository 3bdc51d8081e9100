import { expect, it } from "vitest";
import { z } from "zod";
import type { DurableBackend } from "../../src/backend.ts";
import { defineCommitment, route } from "../../src/index.ts";

const backend = (name: string): DurableBackend => ({
  name,
  open: () => {
    throw new Error("not opened here");
  },
});

const commitment = (name: string) =>
  defineCommitment({
    name,
    version: 1,
    input: z.object({}),
    output: z.object({}),
    sideEffectClass: "internal_write",
    approvalClass: "A0",
    reversibilityClass: "R1",
    sensitivityClass: "S1",
    execute: async () => ({}),
  });

const [one, two] = [backend("one"), backend("two")];

it.each([
  ["payment.send", "two"],
  ["payment.refund.partial", "two"],
  ["payments.send", "one"],
  ["payment", "one"],
  ["crm.upsert", "one"],
])("gives %s to %s", (name, owner) => {
  expect(route({ "payment.*": two, default: one }).ownerOf?.(commitment(name))).toBe(owner);
});

it("takes a name without a wildcard for exactly that commitment", () => {
  const routed = route({ "payment.send": two, default: one });
  expect(routed.ownerOf?.(commitment("payment.send"))).toBe("two");
  expect(routed.ownerOf?.(commitment("payment.send.later"))).toBe("one");
});

it("refuses a commitment that two patterns give to two backends", () => {
  const routed = route({ "payment.*": two, "payment.send": one, default: one });
  expect(() => routed.ownerOf?.(commitment("payment.send"))).toThrow(
    expect.objectContaining({ code: "OPTION_INVALID", facts: expect.objectContaining({ commitment: "payment.send" }) }),
  );
  expect(route({ "payment.*": two, "payment.send": two, default: one }).ownerOf?.(commitment("payment.send"))).toBe(
    "two",
  );
});

it.each(["*", "payment*", "Payment.*", "payment..*", ""])(
  "refuses the pattern '%s', which no commitment can match",
  (pattern) => {
    expect(() => route({ [pattern]: two, default: one })).toThrow(expect.objectContaining({ code: "OPTION_INVALID" }));
  },
);

it("refuses two backends of one name: rows could not say whose they are", () => {
  expect(() => route({ "payment.*": backend("one"), default: one })).toThrow(
    expect.objectContaining({ code: "OPTION_INVALID" }),
  );
  expect(route({ "payment.*": one, default: one }, { drain: [two] }).names).toEqual(["one", "two"]);
});
