import type { Countersign, ExecutionIntent } from "countersign";
import type pg from "pg";
import { digestOf } from "../src/digest.ts";
import { hasEnded } from "../src/intent.ts";
import { read } from "./files.ts";
import type { LedgerLine, Note, Surroundings } from "./life.ts";
import { settlementsByStrangers } from "./verify-audit.ts";
import { openWorkflows } from "./verify-temporal.ts";

/** What a run counts, and must count none of. */
export const FAILURES = [
  "lost",
  "doubledAtMostOnce",
  "doubledWithKey",
  "effectsWithoutApproval",
  "effectsOtherThanApproved",
  "danglingRunnable",
  "auditBroken",
  "stuck",
  "complaints",
] as const;
export type Failure = (typeof FAILURES)[number];

/** One thing that should not be, with the ids to look it up by. */
export interface Finding {
  readonly failure: Failure;
  readonly what: string;
}

export interface Verdict {
  readonly threads: number;
  readonly intents: number;
  readonly findings: readonly Finding[];
}

interface Thread {
  readonly thread_id: string;
  readonly graph: string;
  readonly status: string;
}

interface Decided {
  readonly intent_id: string;
  readonly verdict: string;
  readonly principal_id: string;
  readonly digest: string;
}

/** Everything that a run left behind: in the database, at the provider, in people's notes. */
interface Remains {
  readonly threads: readonly Thread[];
  readonly intents: readonly ExecutionIntent[];
  readonly byId: ReadonlyMap<string, ExecutionIntent>;
  readonly decisions: readonly Decided[];
  readonly ledger: readonly LedgerLine[];
  readonly notes: readonly Note[];
}

const ENDED = ["completed", "compensated"];

/** Compares the ledgers, the intents, the checkpoints and the audit chain of a run that has come to rest. */
export async function verify(cs: Countersign, pool: pg.Pool, surroundings: Surroundings): Promise<Verdict> {
  const { dir, schema } = surroundings;
  const threads = await pool.query<Thread>(`select thread_id, graph, status from ${schema}.threads`);
  const intents = (await Promise.all(threads.rows.map((thread) => cs.intents(thread.thread_id)))).flat();
  const decisions = await pool.query<Decided>(
    `select intent_id, verdict, principal_id, digest from ${schema}.decisions`,
  );
  const remains: Remains = {
    threads: threads.rows,
    intents,
    byId: new Map(intents.map((intent) => [intent.id, intent])),
    decisions: decisions.rows,
    ledger: read(dir, "ledger"),
    notes: read(dir, "notes"),
  };
  const broken = await cs.audit.verify();
  const findings = [
    ...lost(remains),
    ...(await toldOtherwise(cs, remains)),
    ...doubled(remains),
    ...unapproved(remains),
    ...dangling(remains),
    ...pointless(await openWorkflows(surroundings), remains),
    ...remains.threads
      .filter((thread) => !ENDED.includes(thread.status))
      .map((thread) =>
        found("stuck", `${thread.thread_id} (${thread.graph}) is ${thread.status}: ${standOf(thread, intents)}`),
      ),
    ...broken.map(({ threadId, seq, problem }) => found("auditBroken", `${threadId} row ${seq}: ${problem}`)),
    ...(await settlementsByStrangers(pool, schema)).map((what) => found("auditBroken", what)),
    ...read(dir, "complaints").map(({ role, message }) => found("complaints", `${role}: ${message}`)),
  ];
  return { threads: remains.threads.length, intents: intents.length, findings };
}

/** How the intents of a thread stand, in one line. */
function standOf({ thread_id }: Thread, intents: readonly ExecutionIntent[]): string {
  return intents
    .filter((intent) => intent.threadId === thread_id)
    .map(({ id, kind, commitment, status, compensates, attempt, error }) =>
      [kind, commitment, id, status, `attempt ${attempt}`, error?.code, compensates && `undoes ${compensates}`]
        .filter(Boolean)
        .join(" "),
    )
    .join("; ");
}

const found = (failure: Failure, what: string): Finding => ({ failure, what });

/** What somebody was told is recorded, or what the outbox says was done, and is not there. */
function lost({ threads, intents, decisions, ledger, notes }: Remains): Finding[] {
  const started = new Set(threads.map((thread) => thread.thread_id));
  const decided = new Set(decisions.map((d) => `${d.intent_id} ${d.verdict} ${d.principal_id}`));
  const done = new Set(ledger.map((line) => `${line.verb} ${line.intentId}`));
  return [
    ...notes.flatMap((note) => {
      if (note.kind === "started" && !started.has(note.threadId)) return [found("lost", `thread ${note.threadId}`)];
      if (note.kind !== "decided") return [];
      const decision = `${note.intentId} ${note.verdict} ${note.principal}`;
      return decided.has(decision) ? [] : [found("lost", `decision ${decision}`)];
    }),
    ...intents.flatMap(({ id, kind, status, compensates }) => {
      const verb = compensates === null ? "do" : "undo";
      const claims = kind === "effect" || compensates !== null;
      const says = ["succeeded", "compensating", "compensated", "compensation_failed"].includes(status);
      return claims && says && !done.has(`${verb} ${id}`) ? [found("lost", `effect ${verb} ${id} is ${status}`)] : [];
    }),
  ];
}

/** What a graph was told of each of its waits, against what the outbox has; and that it reached its end. */
async function toldOtherwise(cs: Countersign, { threads, byId, intents }: Remains): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const { thread_id: threadId } of threads.filter((thread) => ENDED.includes(thread.status))) {
    const snapshot = await cs.state(threadId);
    const { log } = snapshot.values as { readonly log: readonly string[] };
    if (snapshot.next.length > 0)
      findings.push(found("lost", `${threadId} has ended, its head is at ${snapshot.next}`));
    const told = log.map((line) => line.split(" ")[0]);
    for (const line of log) {
      const [id = "", status = ""] = line.split(" ");
      const intent = byId.get(id);
      if (intent === undefined || !agrees(status, intent.status)) {
        findings.push(found("lost", `${threadId} was told ${line}, the outbox says ${intent?.status}`));
      }
    }
    for (const { id, commitment, kind } of intents.filter((intent) => intent.threadId === threadId)) {
      const expected = kind === "compensation" || kind === "timer" ? 0 : 1;
      const times = told.filter((each) => each === id).length;
      if (times !== expected)
        findings.push(found("lost", `${threadId} was told of ${id} (${commitment}) ${times} times`));
    }
  }
  return findings;
}

/** What a graph reads of an intent never changes after that, also when it is undone later. */
function agrees(told: string, status: string): boolean {
  if (told === "recorded") return true;
  const asTold = { received: "succeeded", approved: "succeeded" }[told] ?? told;
  return asTold === status || (asTold === "succeeded" && status.startsWith("compensat"));
}

function doubled({ ledger }: Remains): Finding[] {
  const seen = new Map<string, number>();
  for (const { kind, verb, intentId, order } of ledger) {
    const place = kind.startsWith("once") ? intentId : `${order.threadId}/${order.step}`;
    const key = `${kind} ${verb} ${place}`;
    seen.set(key, (seen.get(key) ?? 0) + 1);
  }
  return [...seen]
    .filter(([, times]) => times > 1)
    .map(([key, times]) =>
      found(key.startsWith("once") ? "doubledAtMostOnce" : "doubledWithKey", `${key}: ${times} times`),
    );
}

/** Each effect of the ledger against what people, by their own notes, approved. */
function unapproved({ ledger, byId, decisions, notes }: Remains): Finding[] {
  const findings: Finding[] = [];
  for (const { verb, intentId, order, kind } of ledger) {
    const intent = byId.get(intentId);
    if (intent === undefined) {
      findings.push(found("effectsWithoutApproval", `${kind} of the unknown intent ${intentId}`));
      continue;
    }
    const digest = digestOf({ commitment: intent.commitment, version: intent.version, payload: order });
    const { minApprovers } = intent.requirement;
    const recorded = decisions.filter((each) => each.intent_id === intentId && each.verdict !== "reject");
    const approvers = new Set(
      recorded.filter((each) => each.digest === intent.digest).map((each) => each.principal_id),
    );
    if (verb === "do" && approvers.size < minApprovers) {
      findings.push(found("effectsWithoutApproval", `${kind} ${intentId}: ${approvers.size} of ${minApprovers}`));
    }
    const meant = new Set(
      notes.flatMap((note) =>
        note.kind === "deciding" && note.intentId === intentId && note.verdict !== "reject" && note.digest === digest
          ? [note.principal]
          : [],
      ),
    );
    const asApproved = minApprovers === 0 ? digest === intent.proposedDigest : meant.size >= minApprovers;
    if (verb === "do" && !asApproved) {
      findings.push(found("effectsOtherThanApproved", `${kind} ${intentId}: ${meant.size} people meant this payload`));
    }
  }
  return findings;
}

/** What could still start although its thread has ended, or one of its `commitAll` was turned down. */
function dangling({ threads, intents }: Remains): Finding[] {
  const ended = new Set(threads.filter((thread) => ENDED.includes(thread.status)).map((thread) => thread.thread_id));
  const startable = ["recorded", "awaiting_decision", "runnable", "dispatched", "compensating"];
  const refused = new Set(
    intents.flatMap(({ groupId, status }) => (groupId !== null && status === "rejected" ? [groupId] : [])),
  );
  return intents.flatMap(({ id, threadId, groupId, status, kind }) => {
    const open = ended.has(threadId) && startable.includes(status);
    const stands = groupId !== null && refused.has(groupId) && status === "succeeded";
    return open || stands ? [found("danglingRunnable", `${kind} ${id} of ${threadId} is ${status}`)] : [];
  });
}

/** A workflow that goes on although its row has ended, or without one. */
function pointless(workflows: readonly string[], { byId }: Remains): Finding[] {
  return workflows.flatMap((id) => {
    const intent = byId.get(id);
    if (intent !== undefined && !hasEnded(intent.status)) return [];
    return [found("danglingRunnable", `the workflow of ${id} goes on, its intent is ${intent?.status}`)];
  });
}
