import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "@temporalio/worker";
import type { BackendHost } from "../../backend.ts";
import { type ActivitiesInput, activitiesOf } from "./activities.ts";
import { registeredTypes } from "./catalogue.ts";
import type { Link } from "./link.ts";
import type { TemporalSettings } from "./options.ts";
import { workflowCode } from "./workflow-bundle.ts";

export interface TaskQueueWorkerInput {
  readonly host: BackendHost;
  readonly settings: TemporalSettings;
  readonly link: Link;
  readonly activities: ActivitiesInput;
}

/** How long to wait before polling again after Temporal was away. */
const REVIVE_MS = 1_000;

/**
 * The workflow tasks that follow the last activity come in within this time. One that Temporal gives
 * to a poll that is just being closed is lost, and comes again only after its time-out.
 */
const LINGER_MS = 100;

/** How long Temporal waits for the worker that has a workflow in its cache, which may be dead. */
const STICKY_MS = 2_000;

/** Polls the task queue in this process while somebody uses it: runs its workflows and its activities. */
export class TaskQueueWorker {
  readonly #input: TaskQueueWorkerInput;
  #users = 0;
  #polling: Promise<void> | undefined;
  #stop = new AbortController();

  constructor(input: TaskQueueWorkerInput) {
    this.#input = input;
  }

  /** Polls during the work, and stops when nobody uses it any more: what has begun is finished. */
  async during<Result>(work: () => Promise<Result>): Promise<Result> {
    this.#users++;
    if (this.#polling === undefined) {
      this.#stop = new AbortController();
      this.#polling = this.#poll(this.#stop.signal);
    }
    try {
      return await work();
    } finally {
      this.#users--;
      await delay(LINGER_MS, undefined, { signal: this.#stop.signal }).catch(() => {});
      if (this.#users === 0) await this.stop();
    }
  }

  /** Takes on no more, and resolves when what has begun has ended. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#polling;
    this.#polling = undefined;
  }

  async #poll(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const worker = await this.#create();
        const shutdown = () => worker.shutdown();
        const running = worker.run();
        signal.addEventListener("abort", shutdown, { once: true });
        if (signal.aborted) shutdown();
        await running.finally(() => signal.removeEventListener("abort", shutdown));
      } catch (error) {
        this.#input.host.onError(error);
        await delay(REVIVE_MS, undefined, { signal }).catch(() => {});
      }
    }
  }

  async #create(): Promise<Worker> {
    const { host, settings, link, activities } = this.#input;
    const { connection } = await link.get();
    const { namespace, taskQueue, concurrency, dataConverter, deployment, ownWorkflows } = settings;
    const types = registeredTypes(settings, host.commitments.values());
    return Worker.create({
      connection,
      namespace,
      taskQueue,
      identity: host.workerId,
      workflowBundle: { code: await workflowCode(types, ownWorkflows?.path) },
      activities: { ...ownWorkflows?.activities, ...activitiesOf(activities) },
      maxConcurrentActivityTaskExecutions: concurrency,
      stickyQueueScheduleToStartTimeout: STICKY_MS,
      // A closing process tells its handlers itself, when its own time is up.
      shutdownGraceTime: "100 years",
      ...(dataConverter === undefined ? {} : { dataConverter }),
      ...(deployment === undefined
        ? {}
        : {
            workerDeploymentOptions: {
              version: { deploymentName: deployment.name, buildId: deployment.buildId },
              useWorkerVersioning: true,
              defaultVersioningBehavior: "PINNED",
            },
          }),
    });
  }
}
