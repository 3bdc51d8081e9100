import { z } from "zod";
import { anything, approvers, checker, durationMs, text } from "../arguments.ts";
import { digestOf } from "../digest.ts";
import { InputError, OptionError } from "../errors.ts";
import type { ExecutionIntent } from "../intent.ts";
import { type Json, toJson } from "../json.ts";
import type { DecisionOutcome } from "../outcome.ts";
import type { ApprovalClass, Classes, Requirement, SensitivityClass } from "../policy.ts";
import { requirementOf } from "../policy.ts";
import { parseWith } from "../schema.ts";
import { type ProposeOptions, propose, proposeOptions, waitingTask } from "./propose.ts";
import { type Asked, askFor } from "./wait-for.ts";

const TWO_DAYS_MS = 48 * 3_600_000;

export interface DecisionRequest<Payload> extends ProposeOptions {
  /** What is being decided, dotted and lower-case: `partner.approve`. */
  readonly name: string;
  /** What the reviewer looks at, and may edit if a `schema` is given. Plain JSON. */
  readonly payload: Payload;
  /** Lets a reviewer edit the payload within this schema. Without it: approve or reject only. */
  readonly schema?: z.ZodType<Payload>;
  /** Who signs off. Defaults to `A1`: one person. */
  readonly approvalClass?: Exclude<ApprovalClass, "A0">;
  readonly sensitivityClass?: SensitivityClass;
  /** The roles that must sign off, in place of the class's default names. */
  readonly approvers?: Partial<Requirement>;
  readonly evidence?: unknown;
  /** One line for people, without S2 or S3 data. Defaults to the name. */
  readonly summary?: string;
  /** It ends as `expired` after this long. Milliseconds, defaults to 48 hours. */
  readonly timeoutMs?: number;
}

const check = checker("requestDecision()", {
  request: z.strictObject({
    ...proposeOptions,
    name: text,
    payload: anything,
    schema: z.looseObject({ safeParse: anything }).optional(),
    approvalClass: z.enum(["A1", "A2", "A3"]).optional(),
    sensitivityClass: z.enum(["S0", "S1", "S2", "S3"]).optional(),
    approvers: approvers.optional(),
    evidence: anything,
    summary: text.optional(),
    timeoutMs: durationMs.optional(),
  }),
});

/**
 * Asks people to decide on something that is no external effect, and waits for them.
 * The answer is a value; `payload` in it is what was approved, edited maybe.
 * @throws InputError when the payload does not fit the schema or is not plain JSON.
 * @throws OptionError when the schema says something that JSON Schema, in which it is recorded, cannot say.
 * @throws BoundaryError outside a durable graph.
 */
export function requestDecision<Payload>(request: DecisionRequest<Payload>): Promise<DecisionOutcome<Payload>> {
  return askFor(
    () => {
      check({ request });
      return askDecision(request);
    },
    (intent) => {
      // JSON Schema cannot say all that a zod schema can: an edit is checked by the schema itself before the node goes on.
      parse({ ...request, payload: intent.payload as Payload });
      return decisionOf(intent);
    },
  );
}

function askDecision<Payload>(request: DecisionRequest<Payload>): Asked {
  const at = waitingTask("requestDecision()");
  const { name, schema, approvalClass = "A1" } = request;
  const { maxPayloadBytes } = at.drive;
  const payload = toJson(parse(request), `The payload of the decision '${name}'`, maxPayloadBytes);
  const classes: Classes = {
    sideEffectClass: "none",
    approvalClass,
    reversibilityClass: "R0",
    sensitivityClass: request.sensitivityClass ?? "S1",
    actionClass: "gated",
  };
  const proposed = propose(
    at,
    {
      kind: "decision",
      commitment: name,
      version: 1,
      classes,
      payload,
      payloadSummary: request.summary ?? name,
      digest: digestOf({ commitment: name, version: 1, payload }),
      editSchema: schema === undefined ? null : editSchemaOf(name, schema),
      evidence:
        request.evidence === undefined ? null : toJson(request.evidence, `The evidence of '${name}'`, maxPayloadBytes),
      requirement: requirementOf(classes, request.approvers),
      status: "awaiting_decision",
      semantics: "at-least-once",
      backend: null,
      delayMs: 0,
      expiresInMs: request.timeoutMs ?? TWO_DAYS_MS,
      externalRef: null,
      groupId: null,
      compensable: false,
      waits: true,
    },
    request,
  );
  return { at, ...proposed };
}

/** It is recorded with the request, so that any process can check an edit, also one without this code. */
function editSchemaOf(name: string, schema: z.ZodType): Json {
  try {
    const written = z.toJSONSchema(schema);
    z.fromJSONSchema(written as never);
    return toJson(written, `The schema of the decision '${name}'`);
  } catch (cause) {
    throw new OptionError(`The schema of the decision '${name}' cannot be written as JSON Schema`, {
      remedy:
        "Take out what only code can check, such as transform(), custom(), date() or bigint(): or leave the schema out, and let people approve or reject only.",
      cause,
    });
  }
}

function parse<Payload>({ name, payload, schema }: DecisionRequest<Payload>): Payload {
  if (schema === undefined) return payload;
  const result = parseWith(schema, payload);
  if (result.fits) return result.value;
  throw new InputError(`The payload does not fit the schema of the decision '${name}'`, {
    facts: { paths: result.paths },
    remedy: "Ask with a payload that a reviewer could approve as it is.",
  });
}

function decisionOf<Payload>(intent: ExecutionIntent): DecisionOutcome<Payload> {
  const common = { intentId: intent.id, payload: intent.payload as Payload };
  switch (intent.status) {
    case "rejected":
      return { ...common, status: "rejected", reason: intent.error?.message ?? null };
    case "expired":
      return { ...common, status: "expired" };
    case "cancelled":
      return { ...common, status: "cancelled" };
    default:
      return { ...common, status: "approved" };
  }
}
