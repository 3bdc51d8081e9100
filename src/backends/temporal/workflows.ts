import { ApplicationFailureCategory } from "@temporalio/common";
import {
  type ActivityOptions,
  ApplicationFailure,
  CancellationScope,
  CancelledFailure,
  condition,
  defineSignal,
  proxyActivities,
  setHandler,
} from "@temporalio/workflow";
import {
  activityType,
  type IntentEnd,
  type IntentRef,
  type IntentRun,
  LOOK_SIGNAL,
  type Progress,
  type Stage,
} from "./protocol.ts";

export type { IntentEnd, IntentRun } from "./protocol.ts";

/*
 * The workflow of one intent. It runs in Temporal's sandbox: no Node, no database, no clock but
 * Temporal's. It decides nothing about the intent: the row in Postgres does, and each activity says
 * how the row stands. What it adds is that somebody always comes back for the row: to retry, to ask
 * the provider, to expire, to stop, to undo.
 */

/** Says: look at your row. Sent after the row changed from outside: a webhook, a person, a replay. */
export const look = defineSignal(LOOK_SIGNAL);

/** Longer than any lease: what is left to do by then is to be looked at again. */
const LONGEST_WAIT_MS = 30 * 24 * 3_600_000;

/**
 * Carries an effect or a compensation out, and resolves when its row has ended. Registered once per
 * commitment, under the commitment's own name; a workflow of your own may call it, too.
 * A cancellation from Temporal is put to the row, which may refuse it: what undoes an effect is not
 * stopped half-way, and what nobody knows the outcome of is followed until somebody does.
 * @throws ApplicationFailure `INTENT_FAILED` when the intent failed for good: its row says why.
 */
export async function carryOut(run: IntentRun): Promise<IntentEnd> {
  const intent = new PursuedIntent(run);
  setHandler(look, () => intent.wake());
  CancellationScope.current().cancelRequested.catch(() => intent.stop());
  const status = await CancellationScope.nonCancellable(() => intent.pursue());
  const { intentId } = run;
  if (status === "failed") {
    throw ApplicationFailure.create({
      message: `Intent ${intentId} failed for good`,
      type: "INTENT_FAILED",
      nonRetryable: true,
      // Who is to know of it is told by the outbox; for Temporal's alerts it is business as usual.
      category: ApplicationFailureCategory.BENIGN,
    });
  }
  if (status === "cancelled" && intent.stopped) throw new CancelledFailure(`Intent ${intentId} was cancelled`);
  return { intentId, status };
}

class PursuedIntent {
  readonly #ref: IntentRef;
  readonly #stages: Record<Stage, (ref: IntentRef) => Promise<Progress>>;
  #toLook = false;
  #toStop = false;
  /** It was asked to stop. */
  stopped = false;

  constructor(run: IntentRun) {
    this.#ref = { intentId: run.intentId };
    const proxies = proxyActivities<Record<string, (ref: IntentRef) => Promise<Progress>>>(optionsOf(run));
    const stage = (name: Stage) =>
      proxies[activityType(run.workflowKey, name)] as (ref: IntentRef) => Promise<Progress>;
    this.#stages = { execute: stage("execute"), follow: stage("follow"), look: stage("look"), cancel: stage("cancel") };
    this.#stoppable = run.kind === "effect";
  }

  readonly #stoppable: boolean;

  wake(): void {
    this.#toLook = true;
  }

  stop(): void {
    this.stopped = true;
    this.#toStop = this.#stoppable;
  }

  async pursue(): Promise<Progress["status"]> {
    let progress = await this.#attend(this.#stages.execute(this.#ref), isSettled, null);
    // A look that came in while it ended may mean a replay: the row has gone on.
    while (!hasEnded(progress) || this.#toLook) {
      progress = hasEnded(progress)
        ? await this.#look()
        : await this.#attend(this.#stages.follow(this.#ref), hasEnded, progress.expiresInMs);
    }
    return progress.status;
  }

  /**
   * Waits for an activity that Temporal tries until it is done, and meanwhile does what comes up. A
   * look beside it is safe: only one of the two can claim the row.
   */
  async #attend(
    patient: Promise<Progress>,
    isDone: (progress: Progress) => boolean,
    expiresInMs: number | null,
  ): Promise<Progress> {
    let outcome: Promise<Progress> | undefined;
    const settle = (): void => {
      outcome = patient;
    };
    patient.then(settle, settle);
    let waitMs = expiresInMs;
    for (;;) {
      const somethingCameUp = (): boolean => outcome !== undefined || this.#toLook || this.#toStop;
      if (waitMs === null) await condition(somethingCameUp);
      else await condition(somethingCameUp, Math.min(Math.max(waitMs, 1_000), LONGEST_WAIT_MS));
      if (outcome !== undefined) return outcome;
      const progress = await this.#look();
      if (isDone(progress)) return progress;
      waitMs = progress.expiresInMs;
    }
  }

  #look(): Promise<Progress> {
    const stage = this.#toStop ? "cancel" : "look";
    this.#toStop = false;
    this.#toLook = false;
    return this.#stages[stage](this.#ref);
  }
}

function optionsOf(run: IntentRun): ActivityOptions {
  return {
    startToCloseTimeout: run.startToCloseMs,
    heartbeatTimeout: run.heartbeatMs,
    // How often is the row's business, which counts its attempts; this only says how long to wait
    // where the activity itself does not: after a lost worker, while the database is away.
    retry: {
      initialInterval: Math.max(1, run.retry.initialIntervalMs),
      backoffCoefficient: run.retry.backoff,
      maximumInterval: Math.max(1, run.retry.maxIntervalMs),
    },
  };
}

/** The handler's call is over, whatever it came to. */
function isSettled({ status }: Progress): boolean {
  return status !== "runnable" && status !== "dispatched";
}

function hasEnded({ status }: Progress): boolean {
  return isSettled({ status, expiresInMs: null }) && status !== "unknown" && status !== "awaiting_external";
}
