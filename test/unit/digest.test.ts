import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { digestOf } from "../../src/digest.ts";
import type { Json } from "../../src/index.ts";

const of = (payload: Json, commitment = "mail.send", version = 1): string => digestOf({ commitment, version, payload });

/** The digest of a payload whose canonical form was written by hand, after RFC 8785. */
const sha256 = (canonicalPayload: string): string =>
  createHash("sha256").update(`{"commitment":"mail.send","payload":${canonicalPayload},"version":1}`).digest("hex");

describe("the canonical form is that of RFC 8785", () => {
  it("sorts keys by their UTF-16 code units, at every depth", () => {
    expect(of({ b: 1, a: { d: 1, c: 2 } })).toBe(sha256('{"a":{"c":2,"d":1},"b":1}'));
    // The example of RFC 8785, section 3.2.3.
    const payload = {
      "\u20ac": "Euro Sign",
      "\r": "Carriage Return",
      "\ufb33": "Hebrew Letter Dalet With Dagesh",
      "1": "One",
      "\ud83d\ude00": "Emoji: Grinning Face",
      "\u0080": "Control",
      "\u00f6": "Latin Small Letter O With Diaeresis",
    };
    const canonical =
      '{"\\r":"Carriage Return","1":"One","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis",' +
      '"\u20ac":"Euro Sign","\ud83d\ude00":"Emoji: Grinning Face","\ufb33":"Hebrew Letter Dalet With Dagesh"}';
    expect(of(payload)).toBe(sha256(canonical));
  });

  it("writes numbers as ECMAScript does", () => {
    // The example of RFC 8785, section 3.2.2.
    const parsed = JSON.parse("[333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001]") as Json;
    expect(of(parsed)).toBe(sha256("[333333333.3333333,1e+30,4.5,0.002,1e-27]"));
    expect(of([-0, 1.0, 1e21, 9007199254740991])).toBe(sha256("[0,1,1e+21,9007199254740991]"));
  });

  it("escapes what JSON must escape and nothing else", () => {
    // The example of RFC 8785, section 3.2.2, and a line separator, which stays as it is.
    expect(of('\u20ac$\u000f\u000aA\u0027\u0042\u0022\u005c\\"/\u2028')).toBe(
      sha256('"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/\u2028"'),
    );
  });

  it("does not normalise unicode: what looks the same may differ", () => {
    expect(of("\u00e9")).not.toBe(of("e\u0301"));
  });
});

describe("the digest", () => {
  it("is stable over releases", () => {
    expect(of({ to: "a@example.org", copies: 2 })).toMatchInlineSnapshot(
      `"f2c56b2f994501c17ed81d5776b2e1ee5b5042ed73ec5148ac14fa897a8c1f39"`,
    );
    expect(of(null)).toMatchInlineSnapshot(`"2fd6e7e9005bcc5b0ad80a71747e1e3fd2a0d602a5a54b1cfae5201599c0efc5"`);
    expect(of([], "term-sheet.send", 7)).toMatchInlineSnapshot(
      `"bdf27b0154c33912ec61f2dc84ad06a57780f19fb98830e6df3ca8ffe0ba6a2f"`,
    );
  });

  it("does not depend on the order of keys", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (payload) => {
        const backwards = Object.fromEntries(Object.entries(payload).reverse());
        expect(of(backwards as Json)).toBe(of(payload as Json));
      }),
    );
  });

  it("survives the way through JSON, as a payload that is stored and read back", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (payload) => {
        expect(of(JSON.parse(JSON.stringify(payload)) as Json)).toBe(of(payload as Json));
      }),
    );
  });

  it("differs by commitment, version and payload", () => {
    const digests = [
      of({ a: 1 }),
      of({ a: 1 }, "mail.read"),
      of({ a: 1 }, "mail.send", 2),
      of({ a: 2 }),
      of({ a: "1" }),
      of({ a: null }),
      of({}),
      of([{ a: 1 }]),
    ];
    expect(new Set(digests).size).toBe(digests.length);
  });

  it("differs by the order of a list", () => {
    expect(of([1, 2])).not.toBe(of([2, 1]));
  });
});
