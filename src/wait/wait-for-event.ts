import { z } from "zod";
import { checker, durationMs, text } from "../arguments.ts";
import { InputError } from "../errors.ts";
import type { EventOutcome } from "../outcome.ts";
import { parseWith } from "../schema.ts";
import { internalWait, keyOption, type ProposeOptions, propose, waitingTask } from "./propose.ts";
import { askFor } from "./wait-for.ts";

export interface WaitForEventOptions<Payload> extends Pick<ProposeOptions, "key"> {
  /** What the event must carry. One that does not fit fails the node, with the event kept for a retry. */
  readonly schema?: z.ZodType<Payload>;
  /** It ends as `expired` after this long. Milliseconds. Left out: it waits for good. */
  readonly timeoutMs?: number;
}

const check = checker("waitForEvent()", {
  name: text,
  options: z.strictObject({
    ...keyOption,
    schema: z.looseObject({ safeParse: z.unknown() }).optional(),
    timeoutMs: durationMs.optional(),
  }),
});

/**
 * Waits for a named event from outside, sent to this thread with `cs.sendEvent()`. One that came
 * before it was waited for is kept, and each event answers one wait, the oldest first.
 * @throws BoundaryError outside a durable graph.
 */
export function waitForEvent<Payload = unknown>(
  name: string,
  options: WaitForEventOptions<Payload> = {},
): Promise<EventOutcome<Payload>> {
  return askFor<EventOutcome<Payload>>(
    () => {
      check({ name, options });
      const at = waitingTask("waitForEvent()");
      const body = internalWait({ kind: "event", name, expiresInMs: options.timeoutMs ?? null });
      return { at, ...propose(at, body, options) };
    },
    ({ id: intentId, status, output }) =>
      status === "expired" || status === "cancelled"
        ? { status, intentId }
        : { status: "received", intentId, payload: parse(name, output, options.schema) },
  );
}

function parse<Payload>(name: string, payload: unknown, schema: z.ZodType<Payload> | undefined): Payload {
  if (schema === undefined) return payload as Payload;
  const result = parseWith(schema, payload);
  if (result.fits) return result.value;
  throw new InputError(`The event '${name}' does not carry what this node expects`, {
    facts: { paths: result.paths },
    remedy: "Correct the node's schema and retry the thread: the event is kept.",
  });
}
