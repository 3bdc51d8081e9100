import { randomUUID } from "node:crypto";
import { type DurableBackend, defineCommitment } from "countersign";
import { postgres } from "countersign/postgres";
import type pg from "pg";
import { z } from "zod";
import { WriteBatcher } from "../checkpointers/write-batcher.ts";
import { claimIntents, type Settlement, settleIntents } from "../src/database/claims.ts";
import type { Database } from "../src/database/client.ts";
import { postgresDatabase } from "../src/database/postgres.ts";
import { Wakeups } from "../src/database/wakeups.ts";
import { digestOf } from "../src/digest.ts";
import type { IntentProposal } from "../src/intent.ts";

/**
 * The outbox with no graph around it: intents are recorded by the statement that the saver sends, behind
 * the fence of a thread's lease, and carried out by the worker of a backend: the embedded one, unless another is named.
 */
export class BareOutbox {
  readonly #pool: pg.Pool;
  readonly #database: Database;
  readonly #wakeups = new Wakeups();
  readonly #batcher: WriteBatcher;

  private constructor(pool: pg.Pool, schema: string) {
    this.#pool = pool;
    this.#database = postgresDatabase(pool, { schema });
    this.#batcher = new WriteBatcher(this.#database);
  }

  /** On a schema that was migrated. */
  static async open(pool: pg.Pool, schema = "countersign"): Promise<BareOutbox> {
    const outbox = new BareOutbox(pool, schema);
    await outbox.#wakeups.open(outbox.#database);
    return outbox;
  }

  /** Threads that a driver holds, so that it may record. */
  async threads(count: number): Promise<string[]> {
    const ids = Array.from({ length: count }, () => randomUUID());
    await this.#pool.query(
      `insert into ${this.#database.schema}.threads (thread_id, graph, graph_version, durability, status, correlation_id, proposed_by,
         input_type, input, lease_owner, lease_token, lease_expires_at, ready_at, created_at, updated_at)
       select id, 'bench', 1, 'durable', 'running', id, 'agent:bench', 'json', 'null', 'bench', 1,
         now() + interval '1 hour', now(), now(), now() from unnest($1::text[]) id`,
      [ids],
    );
    return ids;
  }

  /** One intent that nobody has to sign off; returns its id. */
  async record(threadId: string, backend = "postgres"): Promise<string> {
    const recorded = proposal(backend);
    const call = {
      threadId,
      leaseToken: 1,
      drive: undefined,
      writes: [],
      blobs: [],
      checkpoints: [],
      proposals: [recorded],
    };
    await this.#batcher.write(call).done;
    return recorded.id;
  }

  /** Claims what is runnable and settles it; returns how long the claim took. Milliseconds. */
  async claim(): Promise<number> {
    const claimer = { backend: "postgres", worker: "bench" };
    const kinds = [{ workflowKey: KEY, slots: 24 }];
    const start = performance.now();
    const claimed = await claimIntents(this.#database, { ...claimer, kinds, limit: 24, leaseMs: 30_000 });
    const tookMs = performance.now() - start;
    const settlements = claimed.map(({ id, leaseToken }): Settlement => {
      return { id, leaseToken, from: "dispatched", status: "succeeded", action: "intent.succeeded", output: {} };
    });
    const settled = await settleIntents(this.#database, { ...claimer, settlements });
    if (!settled.includes(true)) throw new Error("Nothing was claimed");
    return tookMs;
  }

  /** Carries out what is recorded, this many at once, until `stop()`; which resolves when everything is settled. */
  work(
    atOnce: number,
    handler: (threadId: string) => void,
    backend: DurableBackend = postgres({ concurrency: atOnce }),
  ): { stop(): Promise<void> } {
    const commitment = defineCommitment({
      ...KIND,
      input: z.object({ n: z.number() }),
      output: z.object({ ref: z.string() }),
      execute: async (_input, { threadId, idempotencyKey }) => {
        handler(threadId);
        return { ref: idempotencyKey };
      },
    });
    const worker = backend.open({
      database: this.#database,
      wakeups: this.#wakeups,
      commitments: new Map([[commitment.workflowKey, commitment]]),
      workerId: `bench:${randomUUID()}`,
      leaseMs: 30_000,
      pollIntervalMs: 1_000,
      maxPayloadBytes: 1_000_000,
      onError: (error) => {
        throw error;
      },
    });
    const stop = new AbortController();
    const running = worker.run(stop.signal);
    return {
      async stop() {
        stop.abort();
        await running;
      },
    };
  }

  async close(): Promise<void> {
    await this.#wakeups.close();
  }
}

const KIND = {
  name: "bench.effect",
  version: 1,
  sideEffectClass: "internal_write",
  approvalClass: "A0",
  reversibilityClass: "R1",
  sensitivityClass: "S1",
} as const;
const KEY = `${KIND.name}@${KIND.version}`;

function proposal(backend: string): IntentProposal {
  const id = randomUUID();
  const payload = { n: 1 };
  const { name: commitment, version, sideEffectClass, approvalClass, reversibilityClass, sensitivityClass } = KIND;
  return {
    id,
    kind: "effect",
    commitment,
    version,
    workflowKey: KEY,
    idempotencyKey: id,
    classes: { sideEffectClass, approvalClass, reversibilityClass, sensitivityClass, actionClass: "auto" },
    payload,
    payloadSummary: commitment,
    digest: digestOf({ commitment, version, payload }),
    editSchema: null,
    evidence: null,
    requirement: { minApprovers: 0, roles: [] },
    proposedBy: "agent:bench",
    actorType: "automated_workflow",
    status: "runnable",
    semantics: "at-least-once",
    backend,
    delayMs: 0,
    expiresInMs: null,
    externalRef: null,
    groupId: null,
    compensable: false,
    waits: true,
    checkpointNs: "",
    checkpointId: "",
    taskId: "",
    traceId: null,
  };
}
