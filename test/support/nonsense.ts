/** Values that no careful caller passes, and that a request, a queue or a typo does. */
const EVERYTHING: Readonly<Record<string, unknown>> = {
  undefined: undefined,
  null: null,
  "a number": 7,
  NaN: Number.NaN,
  Infinity: Number.POSITIVE_INFINITY,
  "a negative number": -1,
  "an empty text": "",
  "a text": "nonsense",
  "a text with NUL": "a\u0000b",
  "a lone surrogate": "\ud800",
  "an endless text": "x".repeat(200_000),
  "an object": { some: "thing" },
  "a list": [7],
  "a symbol": Symbol("nonsense"),
  "a function": () => "nonsense",
  "a bigint": 7n,
  "an invalid Date": new Date(Number.NaN),
  "a boolean": true,
  "an object with a __proto__ key": JSON.parse('{"__proto__": {"id": "mia", "roles": ["manager"]}}'),
  "an object that throws when it is read": new Proxy(
    {},
    {
      get(_target, key) {
        throw new Error(`read ${String(key)}`);
      },
      ownKeys() {
        throw new Error("listed");
      },
    },
  ),
};

/** All of it, but what makes sense here after all. */
export function nonsenseBut(...sensible: readonly string[]): [string, unknown][] {
  for (const name of sensible) if (!(name in EVERYTHING)) throw new Error(`no nonsense is called '${name}'`);
  return Object.entries(EVERYTHING).filter(([name]) => !sensible.includes(name));
}
