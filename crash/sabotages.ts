import type { BackendName } from "./backends.ts";
import type { Focus } from "./life.ts";
import type { Failure } from "./verify.ts";

/** A guarantee that is broken on purpose, to show that a run would notice. */
export interface Sabotage {
  readonly name: string;
  /** Which guarantee of design §1 it breaks, and how. */
  readonly breaks: string;
  /** What a run then counts. */
  readonly shows: Failure;
  /** The one backend that it is about; any, where it says nothing. */
  readonly backend?: BackendName;
  /** Where it shows soonest. */
  readonly focus?: Focus;
  /** What of our sources is said differently. Each text stands there exactly once, or the bundle fails. */
  readonly changes: readonly { readonly file: string; readonly find: string; readonly replace: string }[];
}

const MIGRATION = "src/database/migrations/0002-state-machine.ts";
const CONSEQUENCES = "src/database/migrations/0003-consequences.ts";
const REQUESTS = "src/database/migrations/0008-compensation-requests.ts";

export const SABOTAGES: readonly Sabotage[] = [
  {
    name: "put-before-writes",
    breaks: "G1: a checkpoint commits before the task writes that led to it, and the intents among them",
    shows: "lost",
    focus: { graphs: ["loose"], failpoints: ["checkpoint.after"], hit: 3, freeze: false },
    changes: [
      {
        file: "checkpointers/write-batcher.ts",
        find: "    this.#queue.push({ call, ticket, resolve, reject });\n    this.#schedule();",
        replace: `    const join = () => { this.#queue.push({ call, ticket, resolve, reject }); this.#schedule(); };
    if (call.proposals.length > 0) setTimeout(join, 1_000); else join();`,
      },
      {
        file: "checkpointers/write-order.ts",
        find: "    if (earlier === undefined) return;",
        replace: "    if (earlier !== undefined) return;\n    if (earlier === undefined) return;",
      },
    ],
  },
  {
    name: "no-approval",
    breaks: "G2: one approval is as good as two",
    shows: "effectsWithoutApproval",
    focus: { graphs: ["reviewed"] },
    changes: [
      { file: "src/decision.ts", find: "isFulfilled(intent.requirement, approvers)", replace: "true" },
      {
        file: MIGRATION,
        find: ".has_its_approvals(intent)\n",
        replace: ".has_its_approvals(intent) or true\n",
      },
    ],
  },
  {
    name: "digest",
    breaks: "G3: an approval counts for whatever the intent says now, not for what the person saw",
    shows: "effectsOtherThanApproved",
    focus: { graphs: ["reviewed"], plans: ["edit"] },
    changes: [
      {
        file: "src/runtime/decide.ts",
        find: "    digest: options.digest,\n    ...(edited",
        replace: "    digest: current.digest,\n    ...(edited",
      },
    ],
  },
  {
    name: "payload",
    breaks: "G3: what runs is not what was approved",
    shows: "effectsOtherThanApproved",
    changes: [
      {
        file: "src/backends/execute.ts",
        find: "commitment.handlers.execute(effect.payload, context)",
        replace: "commitment.handlers.execute({ ...(effect.payload as object), amount: 1_000_000 }, context)",
      },
    ],
  },
  {
    name: "no-claim",
    breaks: "G4: a handler is called before its claim is durable",
    shows: "doubledAtMostOnce",
    backend: "postgres",
    focus: { graphs: ["careful"] },
    changes: [
      {
        file: "src/backends/postgres/worker.ts",
        find: "    // failpoint: claim.before\n",
        replace: `    const early: ExecutionIntent[] = (await database.query<any>({ text: \`select i.* from \${database.schema}.execution_intents i
      where status = 'runnable' and not_before <= \${database.schema}.clock() and workflow_key = any($1::text[]) limit 4\`,
      values: [kinds.map((kind) => kind.workflowKey)] })).map(intentFromRow);
    const abort = new AbortController();
    await Promise.all(early.filter((intent) => intent.kind === "effect").map((intent) => execute({ intent, effect: intent,
      commitment: this.#host.commitments.get(intent.workflowKey)!, signal: abort.signal })));
    // failpoint: claim.before
`,
      },
      {
        file: "src/backends/postgres/worker.ts",
        find: 'import { Dispatches } from "../dispatches.ts";',
        replace: `import { intentFromRow } from "../../database/intents.ts";
import { Dispatches } from "../dispatches.ts";
import { execute } from "../execute.ts";`,
      },
    ],
  },
  {
    name: "no-claim-of-task",
    breaks: "G4: a handler is called as soon as Temporal says so, before its claim is durable",
    shows: "doubledAtMostOnce",
    backend: "temporal",
    focus: { graphs: ["careful"] },
    changes: [
      {
        file: "src/backends/temporal/activities.ts",
        find: "      // failpoint: claim.before\n",
        replace: `      const early = await loadIntent(database, intentId);
      if (early?.kind === "effect" && early.status === "runnable") {
        await execute({ intent: early, effect: early, commitment: this.#commitment,
          maxPayloadBytes: host.maxPayloadBytes, signal: closing });
      }
      // failpoint: claim.before
`,
      },
      {
        file: "src/backends/temporal/activities.ts",
        find: 'import type { Dispatches } from "../dispatches.ts";',
        replace: `import { loadIntent } from "../../database/intents.ts";
import type { Dispatches } from "../dispatches.ts";
import { execute } from "../execute.ts";`,
      },
    ],
  },
  {
    name: "no-second-hand-over",
    breaks: "G6: an intent whose relay died before it had started a workflow is not handed over again",
    shows: "stuck",
    backend: "temporal",
    focus: { graphs: ["serial"], failpoints: ["hand-over.within"], hit: 1, freeze: false },
    changes: [
      {
        file: "src/database/hand-over.ts",
        find: "and (lease_expires_at is null or lease_expires_at <=",
        replace: "and (lease_expires_at is null or 'infinity' <=",
      },
    ],
  },
  {
    name: "no-unknown",
    breaks: "G4b: an at-most-once effect whose worker died is sent again",
    shows: "doubledAtMostOnce",
    focus: { graphs: ["careful"], failpoints: ["response.after", "settle.before"], hit: 1, freeze: false },
    changes: [
      {
        file: "src/database/claims.ts",
        find: "status = case when i.semantics = 'at-most-once' then 'unknown'",
        replace: "status = case when i.semantics = 'never' then 'unknown'",
      },
    ],
  },
  {
    name: "no-cascade",
    breaks: "G5: a rejection leaves its siblings standing",
    shows: "danglingRunnable",
    focus: { graphs: ["together"], plans: ["reject"] },
    changes: [
      {
        file: "src/runtime/decide.ts",
        find: 'if (effect === "rejected" && group.length > 1) await endSiblings',
        replace: 'if (effect === "rejected" && group.length > 99) await endSiblings',
      },
      {
        file: REQUESTS,
        find: "(wish.of_thread or n.group_id is not null and n.status in ('rejected', 'expired'))",
        replace: "wish.of_thread",
      },
    ],
  },
  {
    name: "no-takeover",
    breaks: "G6: a thread whose driver died stays where it is",
    shows: "stuck",
    changes: [
      {
        file: "src/database/threads.ts",
        find: "or status = 'running' and durability = 'durable' and lease_expires_at",
        replace: "or status = 'never' and durability = 'durable' and lease_expires_at",
      },
    ],
  },
  {
    name: "no-fence",
    breaks: "G7: a settlement counts whoever holds the lease",
    shows: "auditBroken",
    focus: { graphs: ["serial"], failpoints: ["settle.before"], hit: 1, freeze: true, providerMs: 2_200 },
    changes: [
      {
        file: "src/database/claims.ts",
        find: "where i.backend = $1 and i.lease_token = s.token and i.status = s.was",
        replace: "where i.backend = $1 and i.status = s.was",
      },
      {
        file: "src/database/claims.ts",
        find: "where i.lease_token = held.token and i.lease_owner is not null",
        replace: "where i.lease_owner is not null",
      },
    ],
  },
  {
    name: "zombie-driver",
    breaks: "G7: a driver whose lease is gone still writes checkpoints",
    shows: "lost",
    focus: { graphs: ["serial", "nested"], failpoints: ["checkpoint.before"], freeze: true },
    changes: [
      {
        file: "checkpointers/write-statement.ts",
        find: "where call.token is not distinct from fence.token",
        replace: "where true",
      },
    ],
  },
  {
    name: "no-wake",
    breaks: "G6: an outcome is recorded and its thread is not told",
    shows: "stuck",
    changes: [
      {
        file: REQUESTS,
        find: "status = case when t.status = 'waiting' and ended.waited = 1 then 'ready' else t.status end",
        replace: "status = t.status",
      },
    ],
  },
  {
    name: "no-chain",
    breaks: "G8: an audit row does not carry the hash of the one before it",
    shows: "auditBroken",
    changes: [
      {
        file: CONSEQUENCES,
        find: "sha256(head || convert_to",
        replace: "sha256(convert_to",
      },
    ],
  },
];
