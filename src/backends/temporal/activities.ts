import { Context } from "@temporalio/activity";
import { ApplicationFailure, ApplicationFailureCategory } from "@temporalio/common";
import type { BackendHost } from "../../backend.ts";
import type { AnyCommitment } from "../../commitment.ts";
import { rescueIntents, type Settlement } from "../../database/claims.ts";
import { cancelIntents, lockWithGroup } from "../../database/decisions.ts";
import { claimIntent, loadStanding, type Standing } from "../../database/hand-over.ts";
import { leaseInquiries } from "../../database/inquiries.ts";
import { expireIntents } from "../../database/sweep.ts";
import { isCountersignError } from "../../errors.ts";
import type { IntentStatus } from "../../intent.ts";
import type { Dispatches } from "../dispatches.ts";
import { ask, type Inquirable, inquirable } from "../inquiry.ts";
import { pastRefused } from "../past-refused.ts";
import { activityType, type IntentRef, type Progress, type Stage } from "./protocol.ts";

export interface ActivitiesInput {
  readonly host: BackendHost;
  readonly backend: string;
  readonly dispatches: Dispatches;
  /** Aborts inquiries when the worker closes: they have no effect and can be repeated. */
  readonly closing: AbortSignal;
  /** Told whenever something was done. */
  readonly onProgress: () => void;
}

type Activity = (ref: IntentRef) => Promise<Standing>;

/** How soon to look again for a free slot of a commitment that has no more. */
const BUSY_MS = 250;

/**
 * How often a row is looked at that only a word from outside can end. Whoever brings that word also
 * sends a signal; this is for a process that died in between.
 */
const UNTOLD_MS = 3_600_000;

/**
 * The activities of every commitment that this process serves, under their pinned names. A task of
 * any other name fails here and is tried elsewhere (rule 14).
 */
export function activitiesOf(input: ActivitiesInput): Record<string, (ref: IntentRef) => Promise<Progress>> {
  return Object.fromEntries(
    [...input.host.commitments.values()].flatMap((commitment) => {
      const intents = new IntentActivities(input, commitment);
      const named = (stage: Stage, activity: Activity): [string, (ref: IntentRef) => Promise<Progress>] => [
        activityType(commitment.workflowKey, stage),
        async (ref) => {
          const { status, expiresInMs } = await carriedOut(input.host, () => activity(ref));
          return { status, expiresInMs };
        },
      ];
      return [
        named("execute", (ref) => intents.execute(ref)),
        named("follow", (ref) => intents.follow(ref)),
        named("look", (ref) => intents.look(ref)),
        named("cancel", (ref) => intents.cancel(ref)),
      ];
    }),
  );
}

class IntentActivities {
  readonly #input: ActivitiesInput;
  readonly #commitment: AnyCommitment;
  /** Claims under way, which will take a slot. */
  #claiming = 0;

  constructor(input: ActivitiesInput, commitment: AnyCommitment) {
    this.#input = input;
    this.#commitment = commitment;
  }

  async execute(ref: IntentRef): Promise<Standing> {
    const standing = await this.#advance(ref.intentId);
    switch (standing.status) {
      case "runnable":
        throw notYet(standing, Math.max(standing.dueInMs, this.#isBusy ? BUSY_MS : 0));
      case "dispatched":
        // Somebody else holds it; if they are lost, it can be taken over when their lease has run out.
        throw notYet(standing, Math.max(standing.leasedForMs ?? 0, 0));
      default:
        return standing;
    }
  }

  async follow(ref: IntentRef): Promise<Standing> {
    const standing = await this.#advance(ref.intentId);
    switch (standing.status) {
      case "runnable":
      case "dispatched":
        return this.execute(ref);
      case "unknown":
      case "awaiting_external": {
        // Where nobody can be asked, only a signal or a timer brings news.
        const asks = inquirable(this.#input.host, standing.status).includes(this.#commitment.workflowKey);
        const waitMs = asks ? Math.max(standing.dueInMs, standing.leasedForMs ?? 0) : UNTOLD_MS;
        throw notYet(standing, Math.min(waitMs, UNTOLD_MS));
      }
      default:
        return standing;
    }
  }

  look({ intentId }: IntentRef): Promise<Standing> {
    return this.#advance(intentId);
  }

  /** As if somebody had called `cancelIntent`, for its group as well; what its state does not allow, changes nothing. */
  async cancel({ intentId }: IntentRef): Promise<Standing> {
    const { database } = this.#input.host;
    const by = { by: "temporal", byType: "automated_workflow", reasonCode: "cancelled" };
    await database.transaction(async (tx) => {
      const group = await lockWithGroup(tx, intentId);
      await cancelIntents(tx, { ids: group.map(({ id }) => id), ...by });
    });
    return this.#standing(intentId);
  }

  /** Does with an intent what is due now, and says how it stands then. */
  async #advance(intentId: string): Promise<Standing> {
    try {
      const dispatched = await this.#dispatch(intentId);
      if (dispatched !== undefined) return dispatched;
      const standing = await this.#standing(intentId);
      if (await this.#move(intentId, standing)) return await this.#standing(intentId);
      return standing;
    } finally {
      this.#input.onProgress();
    }
  }

  /** Claims the intent if it is runnable and due, and carries it out. */
  async #dispatch(intentId: string): Promise<Standing | undefined> {
    const { host, backend, dispatches, closing } = this.#input;
    const { workflowKey } = this.#commitment;
    if (this.#isBusy || closing.aborted) return undefined;
    this.#claiming++;
    let settling: Promise<Settlement | undefined>;
    try {
      const { database, workerId: worker, leaseMs } = host;
      const claim = { id: intentId, backend, workflowKey, worker, leaseMs };
      // failpoint: claim.before
      const intent = await pastRefused(host, () => claimIntent(database, claim));
      // failpoint: claim.after
      if (intent === undefined) return undefined;
      settling = dispatches.begin(intent);
    } finally {
      this.#claiming--;
    }
    const settlement = await settling;
    // What was recorded for good needs no second look.
    if (settlement !== undefined && isFinal(settlement.status)) return ended(settlement.status);
    return this.#standing(intentId);
  }

  /** Moves on what nobody needs to be called for. True when it may have changed. */
  async #move(intentId: string, standing: Standing): Promise<boolean> {
    const { host, backend } = this.#input;
    const { status, leasedForMs, dueInMs, expiresInMs } = standing;
    const held = leasedForMs !== null && leasedForMs >= 0;
    if (status === "dispatched" && !held) {
      const kinds = [{ workflowKey: this.#commitment.workflowKey, maxAttempts: this.#commitment.retry.maxAttempts }];
      const rescue = { backend, worker: host.workerId, kinds, id: intentId };
      // failpoint: rescue.before
      const rescued = await pastRefused(host, () => rescueIntents(host.database, rescue));
      // failpoint: rescue.after
      // Runnable again, it is carried out at once; unknown, it is asked about.
      if (rescued > 0) await this.#advance(intentId);
      return rescued > 0;
    }
    if (status === "awaiting_external" && expiresInMs !== null && expiresInMs <= 0) {
      return (await host.database.transaction(expireIntents)) > 0;
    }
    if ((status === "unknown" || status === "awaiting_external") && dueInMs <= 0 && !held) {
      return this.#inquire(intentId, status);
    }
    return false;
  }

  async #inquire(id: string, status: Inquirable): Promise<boolean> {
    const { host, backend, dispatches, closing } = this.#input;
    const { workflowKey } = this.#commitment;
    if (closing.aborted || !inquirable(host, status).includes(workflowKey)) return false;
    const { database, workerId: worker, leaseMs } = host;
    const lease = { backend, worker, status, workflowKeys: [workflowKey], limit: 1, leaseMs, id };
    // failpoint: inquiry.before
    const [intent] = await leaseInquiries(database, lease);
    // failpoint: inquiry.within
    if (intent === undefined) return false;
    await ask(host, { intent, from: status, settle: (s) => dispatches.settle(s), signal: closing });
    // failpoint: inquiry.after
    return true;
  }

  get #isBusy(): boolean {
    const { maxConcurrency, workflowKey } = this.#commitment;
    return this.#input.dispatches.handling(workflowKey) + this.#claiming >= maxConcurrency;
  }

  async #standing(id: string): Promise<Standing> {
    const { host, backend } = this.#input;
    const { workflowKey } = this.#commitment;
    const standing = await loadStanding(host.database, { id, backend, workflowKey });
    if (standing !== undefined) return standing;
    throw ApplicationFailure.nonRetryable(
      `There is no intent ${id} of ${workflowKey} for ${backend}`,
      "INTENT_NOT_FOUND",
    );
  }
}

/** Not an error, but the way to say to Temporal: try again after this long, without a trace in the history. */
function notYet({ status }: Standing, nextRetryDelay: number): ApplicationFailure {
  return ApplicationFailure.create({
    message: `The intent is ${status}`,
    type: "NOT_YET",
    category: ApplicationFailureCategory.BENIGN,
    nextRetryDelay: Math.ceil(Math.max(nextRetryDelay, 1)),
  });
}

function isFinal(status: IntentStatus): boolean {
  return status === "succeeded" || status === "failed" || status === "cancelled";
}

function ended(status: IntentStatus): Standing {
  return { status, dueInMs: 0, leasedForMs: null, expiresInMs: null };
}

/** Beats while the work lasts, and lets nothing out that a handler or the database said. */
async function carriedOut<Answer>(host: BackendHost, work: () => Promise<Answer>): Promise<Answer> {
  const context = Context.current();
  const beat = setInterval(() => context.heartbeat(), host.leaseMs / 3);
  try {
    return await work();
  } catch (error) {
    if (error instanceof ApplicationFailure) throw error;
    host.onError(error);
    const type = isCountersignError(error) ? error.code : "ERROR";
    const message = `${type}: the worker that met it has the details`;
    throw ApplicationFailure.create({ message, type, category: ApplicationFailureCategory.BENIGN });
  } finally {
    clearInterval(beat);
  }
}
