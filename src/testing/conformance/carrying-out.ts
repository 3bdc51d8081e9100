import assert from "node:assert/strict";
import { NonRetryableError } from "../../errors.ts";
import { type BackendCase, backendCase, intentOf, MIA, NEEDS_MANAGER, outcomesOf } from "./world.ts";

/** Claim, call, retry, settle. */
export const carryingOut: readonly BackendCase[] = [
  backendCase("commits its claim before it calls the handler", async (world) => {
    let seen: unknown;
    const graph = world.graph(
      world.effect({
        execute: async (_input, { intentId }) => {
          const text = "select status, attempt, lease_owner is not null as leased from countersign.execution_intents";
          seen = (await world.pool.query(`${text} where id = $1`, [intentId])).rows[0];
          return { ref: "r" };
        },
      }),
    );
    const cs = await world.process([graph]);
    const { threadId } = await cs.start(graph, { count: 1 });
    await cs.work({ until: "idle" });
    assert.deepEqual(seen, { status: "dispatched", attempt: 1, leased: true });
    const [outcome] = await outcomesOf(cs, threadId);
    assert.equal(outcome?.status, "succeeded");
  }),

  backendCase(
    "tries a failing handler again, later each time and under the same key, until it succeeds",
    async (world) => {
      const calls: unknown[] = [];
      const graph = world.graph(
        world.effect({
          retry: { maxAttempts: 5, initialIntervalMs: 60_000, backoff: 10, maxIntervalMs: 3_600_000 },
          execute: async (_input, { idempotencyKey, attempt }) => {
            calls.push([idempotencyKey, attempt]);
            if (calls.length < 3) throw new Error("the provider is away");
            return { ref: "third time" };
          },
        }),
      );
      const cs = await world.process([graph]);
      const { threadId } = await cs.start(graph, { count: 1 });
      for (const waitMs of [60_000, 600_000]) {
        await cs.work({ until: "idle" });
        await cs.work({ until: "idle" });
        const intent = await intentOf(cs, threadId);
        assert.equal(intent.status, "runnable");
        assert.equal(intent.error?.message, "the provider is away");
        const delayMs = intent.notBefore.getTime() - intent.updatedAt.getTime();
        assert.ok(delayMs >= waitMs / 2 && delayMs <= waitMs, `waits ${delayMs} of at most ${waitMs} ms`);
        await world.later(waitMs);
      }
      await cs.work({ until: "idle" });
      const { id } = await intentOf(cs, threadId);
      assert.deepEqual(
        calls,
        [1, 2, 3].map((attempt) => [id, attempt]),
      );
      const [outcome] = await outcomesOf(cs, threadId);
      assert.deepEqual(outcome?.status === "succeeded" && outcome.output, { ref: "third time" });
    },
  ),

  backendCase("keeps an intent whose attempts are spent as a dead letter that a replay runs again", async (world) => {
    const keys: string[] = [];
    let providerIsBack = false;
    const graph = world.graph(
      world.effect({
        retry: { maxAttempts: 2, initialIntervalMs: 0 },
        execute: async (_input, { idempotencyKey }) => {
          keys.push(idempotencyKey);
          if (!providerIsBack) throw new Error("away");
          return { ref: "r" };
        },
      }),
    );
    const cs = await world.process([graph]);
    const { threadId } = await cs.start(graph, { count: 1 });
    await cs.work({ until: "idle" });
    const letter = await intentOf(cs, threadId);
    assert.deepEqual([letter.status, letter.attempt], ["failed", 2]);
    assert.equal((await outcomesOf(cs, threadId))[0]?.status, "failed");

    providerIsBack = true;
    await cs.replay(letter.id, { by: MIA });
    await cs.work({ until: "idle" });
    const replayed = await intentOf(cs, threadId);
    assert.deepEqual([replayed.status, replayed.attempt], ["succeeded", 1]);
    assert.deepEqual(keys, [letter.id, letter.id, letter.id]);
  }),

  backendCase("ends an intent at once when its handler says that a retry cannot help", async (world) => {
    let calls = 0;
    const graph = world.graph(
      world.effect({
        execute: async () => {
          calls++;
          throw new NonRetryableError("The account is closed");
        },
      }),
    );
    const cs = await world.process([graph]);
    const { threadId } = await cs.start(graph, { count: 1 });
    await cs.work({ until: "idle" });
    const { status, attempt, error } = await intentOf(cs, threadId);
    assert.deepEqual([status, attempt, error?.code, calls], ["failed", 1, "NON_RETRYABLE", 1]);
  }),

  backendCase("aborts a handler that takes too long, and counts that as an attempt", async (world) => {
    const reasons: unknown[] = [];
    const graph = world.graph(
      world.effect({
        timeoutMs: 20,
        retry: { maxAttempts: 2, initialIntervalMs: 0 },
        execute: (_input, { signal }) =>
          new Promise((_resolve, reject) => {
            signal.addEventListener("abort", () => {
              reasons.push((signal.reason as { readonly code?: unknown }).code);
              reject(signal.reason);
            });
          }),
      }),
    );
    const cs = await world.process([graph]);
    const { threadId } = await cs.start(graph, { count: 1 });
    await cs.work({ until: "idle" });
    assert.deepEqual(reasons, ["HANDLER_TIMEOUT", "HANDLER_TIMEOUT"]);
    const { status, attempt, error } = await intentOf(cs, threadId);
    assert.deepEqual([status, attempt, error?.code], ["failed", 2, "HANDLER_TIMEOUT"]);
  }),

  backendCase(
    "fails, and does not send again, what was answered in a way that the output schema refuses",
    async (world) => {
      let calls = 0;
      const graph = world.graph(
        world.effect({
          execute: async () => {
            calls++;
            return { ref: 7, secret: "iban" } as never;
          },
        }),
      );
      const cs = await world.process([graph]);
      const { threadId } = await cs.start(graph, { count: 1 });
      await cs.work({ until: "idle" });
      const { status, error, output } = await intentOf(cs, threadId);
      assert.deepEqual([status, error?.code, output, calls], ["failed", "OUTPUT_INVALID", null, 1]);
      assert.ok(!JSON.stringify(error).includes("iban"));
    },
  ),

  backendCase("does not run a payload that was changed after its approval", async (world) => {
    let calls = 0;
    const graph = world.graph(
      world.effect({
        ...NEEDS_MANAGER,
        execute: async () => {
          calls++;
          return { ref: "r" };
        },
      }),
    );
    const cs = await world.process([graph]);
    const { threadId } = await cs.start(graph, { count: 1 });
    await cs.work({ until: "idle" });
    assert.equal(calls, 0);
    const intent = await intentOf(cs, threadId);
    await cs.approve(intent.id, { by: MIA, digest: intent.digest });
    await world.pool.query("alter table countersign.execution_intents disable trigger user");
    await world.pool.query(`update countersign.execution_intents set payload = '{"n":1000000}' where id = $1`, [
      intent.id,
    ]);
    await world.pool.query("alter table countersign.execution_intents enable trigger user");
    await cs.work({ until: "idle" });
    const { status, error } = await intentOf(cs, threadId);
    assert.deepEqual([status, error?.code, calls], ["failed", "INTENT_DIGEST_MISMATCH", 0]);
  }),

  backendCase(
    "runs no more handlers at once than the commitment's maxConcurrency, and goes on as they end",
    async (world) => {
      let atOnce = 0;
      let most = 0;
      const graph = world.graph(
        world.effect({
          maxConcurrency: 2,
          execute: async () => {
            most = Math.max(most, ++atOnce);
            await world.pool.query("select pg_sleep(0.05)");
            atOnce--;
            return { ref: "r" };
          },
        }),
      );
      const cs = await world.process([graph]);
      const { threadId } = await cs.start(graph, { count: 7 });
      await cs.work({ until: "idle" });
      assert.equal((await outcomesOf(cs, threadId)).filter(({ status }) => status === "succeeded").length, 7);
      assert.equal(most, 2);
    },
  ),
];
