import type { z } from "zod";
import { checker, LONGEST_MS, approvers as requirement, text, toLine } from "./arguments.ts";
import { DefinitionError, InputError } from "./errors.ts";
import { guard, type HandlerContext, type Handlers, type PollResult, type Reconciliation } from "./handlers.ts";
import { workflowKeyOf } from "./intent.ts";
import type { Pending } from "./pending.ts";
import {
  type ActionClass,
  type ApprovalClass,
  actionClassOf,
  assertConsistent,
  type Classes,
  type Requirement,
  type ReversibilityClass,
  type SensitivityClass,
  type SideEffectClass,
} from "./policy.ts";
import { assertRetryPolicy, DEFAULT_RETRY, type RetryPolicy } from "./retry.ts";

/** What a commitment is declared with. */
export interface CommitmentDefinition<Input, Output> {
  /** Dotted, lower-case, unique: `term-sheet.send`. */
  readonly name: string;
  readonly version: number;
  readonly input: z.ZodType<Input>;
  readonly output: z.ZodType<Output>;
  readonly sideEffectClass: Exclude<SideEffectClass, "none">;
  readonly approvalClass: ApprovalClass;
  readonly reversibilityClass: ReversibilityClass;
  readonly sensitivityClass: SensitivityClass;
  /** Follows from the side effect unless it is declared stricter. */
  readonly actionClass?: ActionClass;
  /** The roles that must sign off, each filled by a person of their own, in place of the default names. */
  readonly approvers?: Partial<Requirement> | ((input: Input) => Partial<Requirement>);
  /** `at-most-once`: dispatched once; a doubt about the outcome becomes `unknown`, never a retry. */
  readonly semantics?: "at-least-once" | "at-most-once";
  readonly retry?: Partial<RetryPolicy>;
  /** One attempt is aborted after this long. Milliseconds, defaults to 30 000. */
  readonly timeoutMs?: number;
  /** How long a person may take to decide. Milliseconds, defaults to 48 hours. */
  readonly decisionTimeoutMs?: number;
  /** At most this many in flight in one worker process. Defaults to no limit of its own. */
  readonly maxConcurrency?: number;
  /** Asks this often while an effect is pending, where `poll` is given. Milliseconds, defaults to 30 000. */
  readonly pollIntervalMs?: number;
  /** In place of the intent's id. The same key with another payload is refused. */
  readonly idempotencyKey?: (input: Input) => string;
  /** One line for people, without S2 or S3 data. Defaults to the commitment's name. */
  readonly summary?: (input: Input) => string;
  readonly execute: (input: Input, context: HandlerContext) => Promise<Output | Pending>;
  /**
   * Undoes it. `output` is undefined where the effect was given up before its answer was known: it may
   * have been done, under the key that `execute` was given.
   */
  readonly compensate?: (
    done: {
      readonly idempotencyKey: string;
      readonly input: Input;
      readonly output: Output | undefined;
      readonly externalRef: string | undefined;
      readonly reason: string;
    },
    context: HandlerContext,
  ) => Promise<unknown>;
  /** Asks the provider what became of a call whose outcome is not known (G4b). */
  readonly reconcile?: (
    asked: { readonly idempotencyKey: string; readonly input: Input },
    context: HandlerContext,
  ) => Promise<Reconciliation<Output>>;
  readonly poll?: (
    asked: { readonly externalRef: string; readonly input: Input },
    context: HandlerContext,
  ) => Promise<PollResult<Output>>;
}

/** A declared kind of external effect. Made by {@link defineCommitment}. */
export interface Commitment<Input = unknown, Output = unknown> {
  readonly name: string;
  readonly version: number;
  readonly workflowKey: string;
  readonly classes: Classes;
  readonly semantics: "at-least-once" | "at-most-once";
  readonly input: z.ZodType<Input>;
  readonly output: z.ZodType<Output>;
  readonly retry: RetryPolicy;
  readonly timeoutMs: number;
  readonly decisionTimeoutMs: number;
  readonly pollIntervalMs: number;
  readonly maxConcurrency: number;
  /** What the backend may call. Calling one inside a graph run throws `BoundaryError`. */
  readonly handlers: Handlers;
  readonly approvers: (input: Input) => Partial<Requirement>;
  readonly idempotencyKey: ((input: Input) => string) | undefined;
  readonly summary: (input: Input) => string;
}

/** A commitment of any input and output, as registries hold it. */
// biome-ignore lint/suspicious/noExplicitAny: Input and Output are used in both directions, so only `any` accepts every commitment
export type AnyCommitment = Commitment<any, any>;

type AnyDefinition = CommitmentDefinition<unknown, unknown>;

const HOUR_MS = 3_600_000;

/**
 * Declares a kind of external effect: what it takes and gives, how grave it is, and the handlers
 * with which a backend carries it out. The graph itself never calls them.
 * @throws DefinitionError when a class is missing or the classes contradict each other (rules 3, 10).
 */
export function defineCommitment<Input, Output>(
  definition: CommitmentDefinition<Input, Output>,
): Commitment<Input, Output> {
  assertObject(definition);
  const { name, version } = definition;
  const subject = `Commitment '${String(name)}'`;
  assertName(name, version);
  assertParts(definition as unknown as AnyDefinition, subject);
  const classes = classesOf(definition as unknown as AnyDefinition, subject);
  const retry: RetryPolicy = { ...DEFAULT_RETRY, ...definition.retry };
  assertRetryPolicy(retry, subject);
  const checkAnswer = checker(subject, { approvers: requirement, idempotencyKey: text.optional() }, InputError);
  const { approvers = {}, idempotencyKey, summary } = definition;
  if (typeof approvers !== "function") checker(subject, { approvers: requirement }, DefinitionError)({ approvers });

  return Object.freeze({
    name,
    version,
    workflowKey: workflowKeyOf(name, version),
    classes,
    semantics: definition.semantics ?? "at-least-once",
    input: definition.input,
    output: definition.output,
    retry,
    timeoutMs: whole(definition.timeoutMs, 30_000, "timeoutMs", subject),
    decisionTimeoutMs: whole(definition.decisionTimeoutMs, 48 * HOUR_MS, "decisionTimeoutMs", subject, LONGEST_MS),
    pollIntervalMs: whole(definition.pollIntervalMs, 30_000, "pollIntervalMs", subject, LONGEST_MS),
    maxConcurrency: whole(definition.maxConcurrency, 1_000_000, "maxConcurrency", subject),
    handlers: guard(definition as unknown as AnyDefinition),
    approvers: (input: Input) => {
      const asked = typeof approvers === "function" ? approvers(input) : approvers;
      checkAnswer({ approvers: asked });
      return asked;
    },
    idempotencyKey:
      idempotencyKey &&
      ((input: Input) => {
        const key = idempotencyKey(input);
        checkAnswer({ approvers: {}, idempotencyKey: key ?? null });
        return key;
      }),
    summary: (input: Input) => toLine(String(summary === undefined ? name : summary(input))),
  });
}

/** Words that an index entry of Postgres can hold. */
export function isName(name: unknown): name is string {
  return typeof name === "string" && name.length <= 200 && /^[a-z0-9]+([.-][a-z0-9]+)*$/.test(name);
}

function assertObject(definition: unknown): void {
  if (typeof definition === "object" && definition !== null) return;
  throw new DefinitionError("defineCommitment() got no definition", { remedy: "Pass { name, version, … }." });
}

/** Postgres counts versions in four bytes, and an index entry must hold the name. */
function assertName(name: unknown, version: unknown): void {
  if (isName(name) && !name.startsWith("countersign.")) {
    if (Number.isInteger(version) && (version as number) >= 1 && (version as number) < 2 ** 31) return;
    throw new DefinitionError(`Commitment '${name}' has no version`, { remedy: "Give it an integer from 1 on." });
  }
  throw new DefinitionError("A commitment has no proper name", {
    facts: { name: String(name) },
    remedy: "Use lower-case words joined by dots or hyphens, such as 'term-sheet.send'.",
  });
}

/** The words of `policy.md`: any other is refused, since it could only mean less than was intended. */
const WORDS = {
  sideEffectClass: /^(internal_write|external_message|external_commitment)$/,
  approvalClass: /^A[0-3]$/,
  reversibilityClass: /^R[0-3]$/,
  sensitivityClass: /^S[0-3]$/,
} as const;

/** Rule 3: a commitment that lacks a class does not register. */
function classesOf(definition: AnyDefinition, subject: string): Classes {
  const { sideEffectClass, approvalClass, reversibilityClass, sensitivityClass } = definition;
  const { actionClass = actionClassOf(String(sideEffectClass) as SideEffectClass) } = definition;
  for (const [name, pattern] of Object.entries({ ...WORDS, actionClass: /^(auto|gated|forbidden)$/ })) {
    const word = name === "actionClass" ? actionClass : definition[name as keyof typeof WORDS];
    if (pattern.test(String(word))) continue;
    throw new DefinitionError(`${subject} has no ${name}`, {
      facts: { [name]: String(word) },
      remedy: "Declare all of sideEffectClass, approvalClass, reversibilityClass and sensitivityClass.",
    });
  }
  const classes = { sideEffectClass, approvalClass, reversibilityClass, sensitivityClass, actionClass };
  assertConsistent(classes, subject);
  return Object.freeze(classes);
}

/** What would otherwise be found out only when it is needed. */
function assertParts(definition: AnyDefinition, subject: string): void {
  const refuse = (part: string, remedy: string): never => {
    throw new DefinitionError(`${subject} has a ${part} that cannot be used`, { remedy });
  };
  const { semantics = "at-least-once" } = definition;
  if (!["at-least-once", "at-most-once"].includes(semantics)) {
    refuse("semantics", "Say 'at-least-once' or 'at-most-once'.");
  }
  for (const part of ["input", "output"] as const) {
    if (typeof definition[part]?.safeParse !== "function") refuse(part, "Pass a zod schema.");
  }
  for (const part of ["execute", "compensate", "reconcile", "poll", "idempotencyKey", "summary"] as const) {
    const handler: unknown = definition[part];
    if (typeof handler === "function" || (handler === undefined && part !== "execute")) continue;
    refuse(part, "Pass a function.");
  }
}

function whole(
  value: number | undefined,
  otherwise: number,
  option: string,
  subject: string,
  most: number = Number.MAX_SAFE_INTEGER,
): number {
  if (value === undefined) return otherwise;
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new DefinitionError(`${subject} has a ${option} that makes no sense`, {
    facts: { [option]: String(value) },
    remedy: "Give a whole number of at least 1 (durations are in milliseconds).",
  });
}
