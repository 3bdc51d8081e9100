import { z } from "zod";
import { anything, approvers, checker } from "../arguments.ts";
import type { AnyCommitment, Commitment } from "../commitment.ts";
import { digestOf } from "../digest.ts";
import type { Drive } from "../drive.ts";
import { BoundaryError, InputError } from "../errors.ts";
import { type ExecutionIntent, type IntentProposal, intentIdOf } from "../intent.ts";
import { toJson } from "../json.ts";
import { type Outcome, outcomeOf } from "../outcome.ts";
import { type Requirement, requirementOf, strengthen } from "../policy.ts";
import { parseWith } from "../schema.ts";
import { type ProposeOptions, propose, proposeOptions, type WaitingTask, waitingTask } from "./propose.ts";
import { type Asked, askFor, recordWithoutWaiting, waitFor } from "./wait-for.ts";

export interface CommitOptions extends ProposeOptions {
  /** What the reviewer is to see: sources, assumptions, alternatives, how to undo it. Plain JSON. */
  readonly evidence?: unknown;
  /** Roles and people beyond what the commitment itself requires. */
  readonly approvers?: Partial<Requirement>;
  /** False: record it and go on; the outcome is then in the outbox only. Defaults to true. */
  readonly wait?: boolean;
}

/** What `commit(…, { wait: false })` gives back: the promise is recorded with this task's own writes. */
export interface Recorded {
  readonly status: "recorded";
  readonly intentId: string;
}

const commitment = z.looseObject({ workflowKey: z.string(), handlers: z.looseObject({}) });
const commitOptions = { ...proposeOptions, evidence: anything, approvers: approvers.optional() };
const checkCommit = checker("commit()", {
  commitment,
  options: z.strictObject({ ...commitOptions, wait: z.boolean().optional() }),
});
const checkCommitAll = checker("commitAll()", {
  requests: z.array(z.strictObject({ ...commitOptions, commitment, input: anything })),
});

/**
 * Proposes an external commitment and waits for its outcome. The intent is recorded in the same
 * transaction as this step's checkpoint writes (G1); people decide on it if its classes ask for
 * that; a backend carries it out; then this node runs again from its start and the call returns.
 *
 * What was recorded wins: if the re-run proposes other words, the outcome's `input` is what was
 * approved and executed.
 * @throws InputError when the input does not fit the commitment's schema or is not plain JSON.
 * @throws BoundaryError outside a durable graph, or for a commitment that the graph does not declare.
 * @throws NonDeterminismError when another wait was recorded at this place.
 * @example
 * const outcome = await commit(sendTermSheet, { partnerId, terms }, { evidence });
 * if (outcome.status !== "succeeded") return { ended: outcome.status };
 */
export function commit<Input, Output>(
  commitment: Commitment<Input, Output>,
  input: NoInfer<Input>,
  options: CommitOptions & { readonly wait: false },
): Promise<Recorded>;
export function commit<Input, Output>(
  commitment: Commitment<Input, Output>,
  input: NoInfer<Input>,
  options?: CommitOptions & { readonly wait?: true },
): Promise<Outcome<Input, Output>>;
export function commit<Input, Output>(
  commitment: Commitment<Input, Output>,
  input: Input,
  options: CommitOptions = {},
): Promise<Outcome<Input, Output> | Recorded> {
  if (options?.wait === false) return record(commitment, input, options);
  return askFor(
    () => {
      checkCommit({ commitment, options });
      const at = waitingTask("commit()");
      return { at, ...proposeEffect(at, commitment, input, options, null) };
    },
    outcomeOf<Input, Output>,
  );
}

async function record<Input, Output>(
  commitment: Commitment<Input, Output>,
  input: Input,
  options: CommitOptions,
): Promise<Recorded> {
  checkCommit({ commitment, options });
  const at = waitingTask("commit()");
  const { proposal, recorded } = proposeEffect(at, commitment, input, options, null);
  if (recorded === undefined) recordWithoutWaiting(at, { ...proposal, waits: false });
  return { status: "recorded", intentId: proposal.id };
}

type InputOf<C> = C extends Commitment<infer Input, infer _Output> ? Input : never;
type OutputOf<C> = C extends Commitment<infer _Input, infer Output> ? Output : never;

/** One entry of {@link commitAll}. */
export interface CommitRequest<C extends AnyCommitment = AnyCommitment> extends Omit<CommitOptions, "wait"> {
  readonly commitment: C;
  readonly input: InputOf<C>;
}

/**
 * Proposes several commitments as one: they are recorded together, and once one of them is rejected,
 * expires or is cancelled, none of the others starts any more (G5); what had run by then is undone
 * where the commitment can (rule 17).
 * @returns the outcomes, in the order of the requests, when all have ended.
 */
export function commitAll<Commitments extends readonly AnyCommitment[]>(
  requests: readonly [...{ [Index in keyof Commitments]: CommitRequest<Commitments[Index]> }],
): Promise<{
  -readonly [Index in keyof Commitments]: Outcome<InputOf<Commitments[Index]>, OutputOf<Commitments[Index]>>;
}> {
  let asked: Asked[];
  try {
    checkCommitAll({ requests });
    const at = waitingTask("commitAll()");
    const groupId = intentIdOf({ ...at.task, key: `group:${at.attempt.nextPlace("group")}` });
    // All are checked before any is asked for: one bad input records nothing of the others.
    asked = (requests as readonly CommitRequest[]).map((request) => ({
      at,
      ...proposeEffect(at, request.commitment, request.input, request, groupId),
    }));
  } catch (error) {
    return Promise.reject(error);
  }
  const outcomes = Promise.all(asked.map(waitFor)).then((ended) => ended.map((intent) => outcomeOf(intent)));
  outcomes.catch(() => {});
  return outcomes as never;
}

function proposeEffect<Input, Output>(
  at: WaitingTask,
  commitment: Commitment<Input, Output>,
  input: Input,
  options: CommitOptions,
  groupId: string | null,
): { readonly proposal: IntentProposal; readonly recorded: ExecutionIntent | undefined } {
  assertDeclared(at.drive, commitment);
  const { name, version, classes } = commitment;
  const { maxPayloadBytes } = at.drive;
  const parsed = parseInput(commitment, input);
  const payload = toJson(parsed, `The input of '${name}'`, maxPayloadBytes);
  const requirement = strengthen(requirementOf(classes, commitment.approvers(parsed)), options.approvers);
  const observed = ["observer_agent", "recommender_agent"].includes(at.drive.graph.actorType);
  const minApprovers = observed ? Math.max(1, requirement.minApprovers) : requirement.minApprovers;
  return propose(
    at,
    {
      kind: "effect",
      commitment: name,
      version,
      idempotencyKey: commitment.idempotencyKey?.(parsed),
      classes,
      payload,
      payloadSummary: commitment.summary(parsed),
      digest: digestOf({ commitment: name, version, payload }),
      editSchema: null,
      evidence:
        options.evidence === undefined ? null : toJson(options.evidence, `The evidence of '${name}'`, maxPayloadBytes),
      requirement: { ...requirement, minApprovers },
      status: minApprovers > 0 ? "awaiting_decision" : "runnable",
      semantics: commitment.semantics,
      backend: at.drive.ownerOf(commitment),
      delayMs: 0,
      expiresInMs: minApprovers > 0 ? commitment.decisionTimeoutMs : null,
      externalRef: null,
      groupId,
      compensable: commitment.handlers.compensate !== undefined,
      waits: true,
    },
    options,
  );
}

function assertDeclared(drive: Drive, commitment: AnyCommitment): void {
  const { workflowKey, classes } = commitment;
  if (!drive.graph.commitments.some((declared) => declared.workflowKey === workflowKey)) {
    throw new BoundaryError("The graph does not declare this commitment", {
      facts: { graph: drive.graph.name, commitment: workflowKey },
      remedy: "List it in defineGraph({ commitments: [...] }), so that reviewers and operators can know of it.",
    });
  }
  if (classes.actionClass !== "forbidden") return;
  drive.denials.push({ workflowKey, reasonCode: "forbidden" });
  throw new BoundaryError("Commitments of class C are forbidden", {
    facts: { graph: drive.graph.name, commitment: workflowKey },
    remedy: "Nothing was recorded but the attempt. There is no approval that would allow it.",
  });
}

function parseInput<Input>(commitment: Commitment<Input, unknown>, input: Input): Input {
  const result = parseWith(commitment.input, input);
  if (result.fits) return result.value;
  throw new InputError(`The input does not fit the commitment '${commitment.workflowKey}'`, {
    facts: { paths: result.paths },
    remedy: "Pass what its input schema describes.",
  });
}
