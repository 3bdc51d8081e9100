import { z } from "zod";
import { text } from "../arguments.ts";
import { Drive, type TaskAttempt } from "../drive.ts";
import { BoundaryError, NonDeterminismError, OptionError } from "../errors.ts";
import { type ExecutionIntent, type IntentProposal, intentIdOf, workflowKeyOf } from "../intent.ts";
import { DRIVE_KEY, type RunningTask, runningTask } from "../langgraph.ts";

/** What the waits have in common: where they stand, and the drive that knows their outcomes. */
export interface WaitingTask {
  readonly drive: Drive;
  readonly task: RunningTask;
  readonly attempt: TaskAttempt;
  readonly toolCallId: string | undefined;
}

/** The part of a proposal that depends on the kind of wait. */
export type ProposalBody = Omit<
  IntentProposal,
  | "id"
  | "workflowKey"
  | "proposedBy"
  | "actorType"
  | "checkpointNs"
  | "checkpointId"
  | "taskId"
  | "traceId"
  | "idempotencyKey"
> & { readonly idempotencyKey?: string | undefined };

export interface ProposeOptions {
  /** In place of the call's ordinal in its task: needed where calls of one task race. */
  readonly key?: string | undefined;
  /** What to do when a re-run proposes another payload than the recorded one. Defaults to "warn". */
  readonly onDivergence?: "warn" | "error" | undefined;
}

/** How {@link ProposeOptions} are checked. */
export const keyOption: { readonly key: z.ZodType } = { key: text.optional() };
export const proposeOptions: { readonly key: z.ZodType; readonly onDivergence: z.ZodType } = {
  ...keyOption,
  onDivergence: z.enum(["warn", "error"]).optional(),
};

/**
 * Where the caller stands, or a refusal that says what to do instead (design §6).
 * @throws BoundaryError outside a graph run, under a foreign checkpointer, in a graph that may not wait.
 */
export function waitingTask(call: string): WaitingTask {
  const task = runningTask();
  if (task === undefined) {
    throw refuse(`${call} was called outside a graph run`, "Call it in a node, a task() or a tool of a durable graph.");
  }
  const drive = task.configurable[DRIVE_KEY];
  if (!(drive instanceof Drive)) {
    throw refuse(
      `${call} was called in a graph that Countersign does not drive`,
      "Register the graph with countersign({ graphs }) as 'durable' and start it with cs.start(): under 'exit', or another checkpointer, nothing could be recorded.",
    );
  }
  if (drive.graph.durability !== "durable") {
    throw refuse(
      `${call} was called in the graph '${drive.graph.name}', whose durability is '${drive.graph.durability}'`,
      "Declare it durability: 'durable'; only then is every step persisted before the next one starts.",
    );
  }
  // A subgraph without a checkpointer stands on a checkpoint that nobody ever wrote.
  if (!drive.checkpoints.has(task.checkpointId)) {
    throw refuse(
      `${call} was called in a subgraph compiled with checkpointer: false`,
      "Compile the subgraph without that option: it inherits the checkpointer.",
    );
  }
  const place = drive.runs.placeOf(task.runId);
  if (place === undefined) {
    throw refuse(
      `${call} was called after its node had ended`,
      "Await everything that a node starts before it returns: what comes later belongs to no step.",
    );
  }
  return { drive, task, toolCallId: place.toolCallId, attempt: drive.task(task.taskId, place.attempt) };
}

function refuse(shortMessage: string, remedy: string): BoundaryError {
  return new BoundaryError(shortMessage, { remedy });
}

/**
 * The intent at this place: the recorded one if there is one, whatever is proposed now (design §3.2),
 * or a new proposal. An ordinal is taken only where the caller gives no key and no tool call does.
 * @throws NonDeterminismError when the recorded one is of another kind, commitment or version.
 */
export function propose(
  { drive, task, attempt, toolCallId }: WaitingTask,
  body: ProposalBody,
  { key, onDivergence = "warn" }: ProposeOptions,
): { readonly proposal: IntentProposal; readonly recorded: ExecutionIntent | undefined } {
  const id = intentIdOf({ ...task, key: key ?? attempt.nextPlace(toolCallId) });
  const proposal: IntentProposal = {
    ...body,
    id,
    idempotencyKey: body.idempotencyKey ?? id,
    workflowKey: workflowKeyOf(body.commitment, body.version),
    proposedBy: drive.proposedBy,
    actorType: drive.graph.actorType,
    checkpointNs: task.checkpointNs,
    checkpointId: task.checkpointId,
    taskId: task.taskId,
    traceId: drive.traceId,
  };
  if (key !== undefined) assertOnePayload(attempt, key, proposal);
  const earlier = drive.intents.get(id) ?? drive.proposals.get(id);
  if (earlier !== undefined) assertSameWait(earlier, proposal);
  const recorded = drive.intents.get(id);
  if (recorded !== undefined && recorded.proposedDigest !== proposal.digest && recorded.kind !== "compensation") {
    noteDivergence(drive, recorded, proposal, onDivergence);
  }
  return { proposal, recorded };
}

/** A key stands for one wait of its task: a second payload under it would silently be dropped. */
function assertOnePayload(attempt: TaskAttempt, key: string, { id, digest }: IntentProposal): void {
  const earlier = attempt.keyed.get(key) ?? digest;
  attempt.keyed.set(key, earlier);
  if (earlier === digest) return;
  throw new OptionError("Two waits of one task have the same key and another payload", {
    facts: { intentId: id },
    remedy: "Derive the key from what tells the two apart.",
  });
}

function assertSameWait(
  earlier: Pick<IntentProposal, "id" | "kind" | "commitment" | "version">,
  proposal: IntentProposal,
): void {
  if (
    earlier.kind === proposal.kind &&
    earlier.commitment === proposal.commitment &&
    earlier.version === proposal.version
  ) {
    return;
  }
  throw new NonDeterminismError({
    intentId: earlier.id,
    recorded: `${earlier.kind} ${workflowKeyOf(earlier.commitment, earlier.version)}`,
    proposed: `${proposal.kind} ${proposal.workflowKey}`,
  });
}

function noteDivergence(
  drive: Drive,
  recorded: ExecutionIntent,
  proposal: IntentProposal,
  onDivergence: "warn" | "error",
): void {
  if (onDivergence === "error") {
    throw new NonDeterminismError({
      intentId: recorded.id,
      recorded: recorded.proposedDigest,
      proposed: proposal.digest,
    });
  }
  drive.divergences.push({ intentId: recorded.id, recorded: recorded.proposedDigest, proposed: proposal.digest });
}

interface InternalWaitInput {
  readonly kind: "event" | "timer" | "compensation";
  readonly name: string;
  readonly delayMs?: number;
  readonly expiresInMs?: number | null;
}

/** Far enough for "not by the clock": an event or a compensation is never due by itself. */
const NEVER_MS = 100 * 365 * 24 * 3_600_000;

/** A wait that is no effect and that nobody decides on: something outside, or the clock, ends it. */
export function internalWait({ kind, name, delayMs, expiresInMs }: InternalWaitInput): ProposalBody {
  return {
    kind,
    commitment: name,
    version: 1,
    classes: {
      sideEffectClass: "none",
      approvalClass: "A0",
      reversibilityClass: "R0",
      sensitivityClass: "S1",
      actionClass: "auto",
    },
    payload: {},
    payloadSummary: name,
    digest: "",
    editSchema: null,
    evidence: null,
    requirement: { minApprovers: 0, roles: [] },
    status: "awaiting_external",
    semantics: "at-least-once",
    backend: null,
    delayMs: delayMs ?? NEVER_MS,
    expiresInMs: expiresInMs ?? null,
    externalRef: null,
    groupId: null,
    compensable: false,
    waits: true,
  };
}
