import { expect, it } from "vitest";
import { Batcher } from "../../src/database/batcher.ts";
import { DatabaseError } from "../../src/errors.ts";

/** Runs `one`, `two` and `three` in one batch: what was sent, and what became of each. */
async function sendThree(run: (items: readonly string[]) => Promise<readonly string[]>) {
  const sent: (readonly string[])[] = [];
  const batcher = new Batcher<string, string>((items) => {
    sent.push(items);
    return run(items);
  });
  const ends = await Promise.allSettled(["one", "two", "three"].map((item) => batcher.add(item)));
  return { sent, ends: ends.map((end) => (end.status === "fulfilled" ? end.value : end.reason.code)) };
}

it("sends a batch once only when nobody knows whether it was committed", async () => {
  const { sent, ends } = await sendThree(async () => {
    throw new DatabaseError("DATABASE_UNAVAILABLE", "The database cannot be reached", { remedy: "Try again." });
  });
  expect(sent).toEqual([["one", "two", "three"]]);
  expect(ends).toEqual(["DATABASE_UNAVAILABLE", "DATABASE_UNAVAILABLE", "DATABASE_UNAVAILABLE"]);
});

it("records the others of a batch when the database refuses one of them", async () => {
  const { sent, ends } = await sendThree(async (items) => {
    if (items.includes("two")) throw Object.assign(new Error("invalid input"), { code: "22P05" });
    return items;
  });
  expect(sent).toEqual([["one", "two", "three"], ["one"], ["two"], ["three"]]);
  expect(ends).toEqual(["one", "22P05", "three"]);
});
