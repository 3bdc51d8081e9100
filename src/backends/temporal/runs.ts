import { type Client, WorkflowExecutionAlreadyStartedError, WorkflowNotFoundError } from "@temporalio/client";
import type { BackendHost } from "../../backend.ts";
import type { AnyCommitment } from "../../commitment.ts";
import { type HandedOver, loadStanding } from "../../database/hand-over.ts";
import { ownerType } from "./catalogue.ts";
import type { TemporalSettings } from "./options.ts";
import { type IntentRun, LOOK_SIGNAL } from "./protocol.ts";

export interface RunsInput {
  readonly host: BackendHost;
  readonly settings: TemporalSettings;
}

/** The workflow runs of our intents: one per intent, under the intent's id. */
export class Runs {
  readonly #input: RunsInput;

  constructor(input: RunsInput) {
    this.#input = input;
  }

  /**
   * Makes sure that a workflow pursues this intent. Any number of relays may do so at once, and again
   * after a crash: a run that is open is reused, a closed one is not repeated. Only where a run has
   * closed and left its row runnable, as after a replay or when an operator terminated it, another
   * one follows.
   */
  async ensure(client: Client, intent: HandedOver): Promise<void> {
    const { host, settings } = this.#input;
    const options = this.#optionsOf(intent);
    const type = ownerType(settings, intent);
    if (intent.again) {
      // failpoint: restart.before
      await client.workflow.signalWithStart(type, {
        ...options,
        workflowIdReusePolicy: "ALLOW_DUPLICATE",
        signal: LOOK_SIGNAL,
      });
      // failpoint: restart.after
      return;
    }
    try {
      // failpoint: start.before
      await client.workflow.start(type, {
        ...options,
        workflowIdReusePolicy: "REJECT_DUPLICATE",
        // The answer brings the first task along, if a worker here has a slot free: a call and a queue less.
        // Who pins versions has Temporal choose the worker.
        requestEagerStart: settings.worker && settings.deployment === undefined,
      });
      // failpoint: start.after
    } catch (error) {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
      const { id, workflowKey } = intent;
      const standing = await loadStanding(host.database, { id, backend: settings.name, workflowKey });
      if (standing?.status === "runnable") await this.ensure(client, { ...intent, again: true });
    }
  }

  /** Tells the workflow of an intent, if it still runs, that its row has changed. */
  async tell(client: Client, intentId: string): Promise<void> {
    try {
      // failpoint: signal.before
      await client.workflow.getHandle(intentId).signal(LOOK_SIGNAL);
      // failpoint: signal.after
    } catch (error) {
      if (!(error instanceof WorkflowNotFoundError)) throw error;
    }
  }

  #optionsOf({ id, digest, workflowKey, kind }: HandedOver) {
    const { host, settings } = this.#input;
    const { timeoutMs, retry } = host.commitments.get(workflowKey) as AnyCommitment;
    const run: IntentRun = {
      intentId: id,
      digest,
      workflowKey,
      kind,
      // Beside the call: to claim before it, and to record its outcome for as long as the lease lasts.
      startToCloseMs: Math.min(timeoutMs + 2 * host.leaseMs, LONGEST_MS),
      heartbeatMs: host.leaseMs,
      retry: {
        initialIntervalMs: retry.initialIntervalMs,
        backoff: retry.backoff,
        maxIntervalMs: Math.min(retry.maxIntervalMs, LONGEST_MS),
      },
    };
    return {
      args: [run] as [IntentRun],
      workflowId: id,
      taskQueue: settings.taskQueue,
      workflowIdConflictPolicy: "USE_EXISTING" as const,
      workflowTaskTimeout: WORKFLOW_TASK_TIMEOUT_MS,
    };
  }
}

/** Ours take milliseconds; a shorter time-out brings a workflow back sooner whose worker was lost. */
const WORKFLOW_TASK_TIMEOUT_MS = 5_000;

/** Ten years. */
const LONGEST_MS = 10 * 365 * 24 * 3_600_000;
