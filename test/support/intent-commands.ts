import fc from "fast-check";
import { type Answer, type Birth, type Command, type Payload, PEOPLE, type Person } from "./intent-model.ts";

/** A life and all that is tried on it, in this order. */
export interface Life {
  readonly birth: Birth;
  readonly commands: readonly Command[];
}

const person = fc.constantFrom(...(Object.keys(PEOPLE) as Person[]));
const payload = fc.constantFrom<Payload>(0, 1, 2);
const answer = fc.constantFrom<Answer>("done", "unreadable", "error", "no for good", "pending");

/** Most people look before they decide; some saw another payload. */
const approval = fc.record({ do: fc.constant("approve"), by: person, sees: payload });
const edit = fc.record({ do: fc.constant("edit"), by: person, sees: payload, to: payload });
const rejection = fc.record({ do: fc.constant("reject"), by: person, sees: fc.option(payload, { nil: undefined }) });
const settlement = fc.record({ do: fc.constant("settle"), answer, heard: fc.boolean() });

/** Approvals, claims and answers come often, so that lives get far; what ends one at once comes seldom. */
const command: fc.Arbitrary<Command> = fc.oneof(
  { arbitrary: approval, weight: 8 },
  { arbitrary: edit, weight: 2 },
  { arbitrary: rejection, weight: 1 },
  { arbitrary: fc.constant({ do: "claim" }), weight: 6 },
  { arbitrary: settlement, weight: 6 },
  { arbitrary: fc.record({ do: fc.constant("settle late"), answer }), weight: 1 },
  { arbitrary: fc.constant({ do: "crash" }), weight: 2 },
  { arbitrary: fc.constant({ do: "deadline" }), weight: 1 },
  { arbitrary: fc.constant({ do: "expire" }), weight: 2 },
  {
    arbitrary: fc.record({
      do: fc.constant("outside"),
      says: fc.constantFrom("done", "failed"),
      receipt: fc.boolean(),
    }),
    weight: 2,
  },
  { arbitrary: fc.constant({ do: "cancel" }), weight: 1 },
  { arbitrary: fc.constant({ do: "replay" }), weight: 2 },
  {
    arbitrary: fc.record({
      do: fc.constant("undo"),
      to: fc.constantFrom("compensating", "compensated", "compensation_failed"),
    }),
    weight: 4,
  },
) as fc.Arbitrary<Command>;

const birth: fc.Arbitrary<Birth> = fc.record({
  semantics: fc.constantFrom("at-least-once", "at-most-once"),
  needs: fc.constantFrom("A0", "A1", "A2"),
  maxAttempts: fc.integer({ min: 1, max: 3 }),
});

/** Any life with at most this many commands. */
export function lives({ maxCommands }: { readonly maxCommands: number }): fc.Arbitrary<Life> {
  return fc.record({ birth, commands: fc.array(command, { minLength: 1, maxLength: maxCommands, size: "max" }) });
}
