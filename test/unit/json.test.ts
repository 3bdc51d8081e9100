import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { toJson } from "../../src/json.ts";

const circular: Record<string, unknown> = {};
circular.self = { again: circular };
const circularList: unknown[] = [];
circularList.push([circularList]);

class Money {
  readonly amount = 1;
}

describe("toJson refuses what would change between the approval and the call", () => {
  it.each([
    ["a Date", { a: [{ b: new Date() }] }, "$.a[0].b is a Date"],
    ["a class instance", { price: new Money() }, "$.price is a Money"],
    ["a Map", [new Map()], "$[0] is a Map"],
    ["a Buffer", Buffer.from("x"), "$ is a Buffer"],
    ["an object of no known class", Object.create({ inherited: 1 }), "$ is a Object"],
    ["NaN", { n: Number.NaN }, "$.n is not a finite number"],
    ["an infinite number", [1, Number.NEGATIVE_INFINITY], "$[1] is not a finite number"],
    ["a bigint", { n: 1n }, "$.n is a bigint"],
    ["a function", { f: () => 1 }, "$.f is a function"],
    ["a symbol", [Symbol("s")], "$[0] is a symbol"],
    ["undefined itself", undefined, "$ is a undefined"],
    ["undefined in a list", [1, undefined], "$[1] is a undefined"],
    // biome-ignore lint/suspicious/noSparseArray: the hole is the point
    ["a hole in a list", [1, , 3], "$[1] is a undefined"],
    ["a lone surrogate", { a: "\ud83d" }, "$.a has a lone surrogate"],
    ["a NUL character", { a: { b: "x\u0000" } }, "$.a.b has a NUL character"],
    ["a __proto__ key", JSON.parse('{"a":{"__proto__":1}}'), "$.a has a __proto__ key"],
    ["an object that holds itself", circular, "$.self.again refers to itself"],
    ["a list that holds itself", circularList, "$[0][0] refers to itself"],
  ])("%s, naming its path", (_name, value, problem) => {
    expect(() => toJson(value, "The input")).toThrow(
      expect.objectContaining({
        code: "PAYLOAD_NOT_JSON",
        shortMessage: `The input is not plain JSON: ${problem}`,
      }),
    );
  });

  it("a key that Postgres would refuse", () => {
    expect(() => toJson({ "a\u0000": 1 }, "It")).toThrow(/has a NUL character/);
    expect(() => toJson({ "\udc00": 1 }, "It")).toThrow(/has a lone surrogate/);
  });

  it("an object without a class or a constructor, such as a module or a proxy of one", () => {
    const nameless = Object.create(Object.create(null) as object) as object;
    expect(() => toJson(nameless, "It")).toThrow(/\$ is a class instance/);
  });

  it("without saying what the value was", () => {
    const secret = "the-secret";
    for (const value of [{ a: `${secret}\u0000` }, { a: `${secret}\ud800` }, { a: Symbol(secret) }]) {
      expect(() => toJson(value, "It")).toThrow(
        expect.objectContaining({ message: expect.not.stringContaining(secret) }),
      );
    }
  });
});

describe("toJson accepts", () => {
  it("every plain JSON value, and returns it unchanged", () => {
    const json = fc
      .jsonValue({ stringUnit: "grapheme" })
      .filter((value) => !JSON.stringify(value).includes("__proto__"));
    fc.assert(
      fc.property(json, (value) => {
        expect(toJson(value, "It")).toEqual(value);
      }),
    );
  });

  it("properties that are undefined, and drops them, as JSON does", () => {
    expect(toJson({ a: 1, b: undefined }, "It")).toStrictEqual({ a: 1 });
  });

  it("objects without a prototype", () => {
    expect(toJson(Object.assign(Object.create(null), { a: 1 }), "It")).toStrictEqual({ a: 1 });
  });

  it("the same object in two places: only a circle is refused", () => {
    const shared = { a: 1 };
    expect(toJson({ left: shared, right: [shared, shared] }, "It")).toEqual({ left: shared, right: [shared, shared] });
  });

  it("and copies, so that a later change of the argument changes nothing", () => {
    const input = { list: [{ a: 1 }] };
    const json = toJson(input, "It");
    input.list.push({ a: 2 });
    expect(json).toEqual({ list: [{ a: 1 }] });
  });
});
