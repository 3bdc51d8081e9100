import { z } from "zod";
import { type Dispatch, execute } from "../../src/backends/execute.ts";
import type { Settlement } from "../../src/database/claims.ts";
import { decide, type RecordedDecision } from "../../src/decision.ts";
import { digestOf } from "../../src/digest.ts";
import { CountersignError, NonRetryableError } from "../../src/errors.ts";
import { type AnyCommitment, defineCommitment, type ExecutionIntent, pending } from "../../src/index.ts";
import { requirementOf } from "../../src/policy.ts";
import { anIntent } from "./intent.ts";
import { type Answer, type Birth, type Command, type Payload, PEOPLE, type Person, PROPOSER } from "./intent-model.ts";

const CLASSES = {
  A0: { sideEffectClass: "internal_write", approvalClass: "A0", reversibilityClass: "R1" },
  A1: { sideEffectClass: "external_message", approvalClass: "A1", reversibilityClass: "R2" },
  A2: { sideEffectClass: "external_message", approvalClass: "A2", reversibilityClass: "R2" },
} as const;

/** What the provider does on the next call. */
type Script = (answer: Answer) => void;

/** A commitment of these classes, whose handler answers as it was told last. */
export function scripted(name: string, { needs, semantics, maxAttempts }: Birth): [AnyCommitment, Script] {
  let next: Answer = "done";
  const commitment = defineCommitment({
    ...CLASSES[needs],
    sensitivityClass: "S1",
    name,
    version: 1,
    semantics,
    retry: { maxAttempts, initialIntervalMs: 0 },
    approvers: needs === "A1" ? { roles: [["manager", "head"]] } : {},
    input: z.object({ n: z.number() }),
    output: z.object({ ref: z.string() }),
    execute: async (): Promise<never> => {
      const answers: Readonly<Record<Answer, () => unknown>> = {
        done: () => ({ ref: "r-1" }),
        unreadable: () => ({ ref: 7 }),
        pending: () => pending({ externalRef: "x-1", expiresAt: new Date(Date.now() + 3_600_000) }),
        error: () => {
          throw new Error("the connection broke");
        },
        "no for good": () => {
          throw new NonRetryableError("The provider refused");
        },
      };
      return answers[next]() as never;
    },
  });
  return [
    commitment,
    (answer) => {
      next = answer;
    },
  ];
}

/** What the payload of this number is, and what people decide on when they see it. */
export function digestOfPayload(commitment: Pick<AnyCommitment, "name" | "version">, n: Payload): string {
  return digestOf({ commitment: commitment.name, version: commitment.version, payload: { n } });
}

/** The signals of a worker: one that has heard of a cancellation, or one that has not. */
export function workerSignals(heard: boolean): Required<Pick<Dispatch, "signal" | "cancelled">> {
  const cancel = new AbortController();
  if (heard) cancel.abort();
  return { signal: new AbortController().signal, cancelled: cancel.signal };
}

const NOW = new Date(1_000);

/** A life in which the pure core decides: who may, what an answer means, how often it is tried. */
export class CoreLife {
  readonly #commitment: AnyCommitment;
  readonly #script: Script;
  #earlier: RecordedDecision[] = [];
  #digests: readonly string[];
  intent: ExecutionIntent;

  constructor(birth: Birth) {
    const [commitment, script] = scripted("life.step", birth);
    this.#commitment = commitment;
    this.#script = script;
    this.#digests = ([0, 1, 2] as const).map((n) => digestOfPayload(commitment, n));
    this.intent = anIntent({
      commitment: commitment.name,
      workflowKey: commitment.workflowKey,
      classes: commitment.classes,
      semantics: birth.semantics,
      requirement: requirementOf(commitment.classes, commitment.approvers({})),
      proposedBy: PROPOSER,
      payload: { n: 0 },
      digest: this.#digests[0] as string,
      status: birth.needs === "A0" ? "runnable" : "awaiting_decision",
      expiresAt: new Date(2_000),
    });
  }

  /** What `decide()` makes of a decision: its new status, or `undefined` for a refusal with a code of ours. */
  decide(command: Extract<Command, { do: "approve" | "edit" | "reject" }>): ExecutionIntent["status"] | undefined {
    const by = { id: command.by, roles: PEOPLE[command.by as Person] };
    const verdict = command.do;
    const digest = command.sees === undefined ? undefined : this.#digests[command.sees];
    const newDigest = command.do === "edit" ? (this.#digests[command.to] as string) : undefined;
    try {
      const input = { verdict, by, digest, ...(newDigest === undefined ? {} : { newDigest }) };
      const effect = decide(this.intent, this.#earlier, input, NOW);
      const decided = newDigest ?? this.intent.digest;
      this.#earlier.push({ verdict, principalId: by.id, principalRoles: by.roles, digest: decided, at: NOW });
      const payload = command.do === "edit" ? { n: command.to } : this.intent.payload;
      this.intent = { ...this.intent, digest: decided, payload };
      return effect === "rejected" ? "rejected" : effect === "released" ? "runnable" : "awaiting_decision";
    } catch (error) {
      if (error instanceof CountersignError) return undefined;
      throw error;
    }
  }

  /** What `execute()` says of one dispatch. */
  async settle(answer: Answer, heard: boolean): Promise<Settlement> {
    this.#script(answer);
    const { intent } = this;
    return execute({
      intent,
      effect: intent,
      commitment: this.#commitment,
      maxPayloadBytes: 1_000,
      ...workerSignals(heard),
    });
  }

  /** A replay asks people anew. */
  forgetDecisions(): void {
    this.#earlier = [];
  }
}
