import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { auditHash } from "../../src/audit.ts";
import { postgres } from "../../src/backends/postgres/index.ts";
import {
  type AuditRow,
  type Countersign,
  commit,
  countersign,
  defineGraph,
  requestDecision,
  verifyAuditChain,
} from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import { type Letter, letter, onlyOne, sent } from "../support/requests.ts";
import { insertIntent, insertThread } from "../support/rows.ts";

const { pool } = await testDatabase();

const hana = { id: "hana", roles: ["head"] };
const lou = { id: "lou", roles: ["legal"] };
const mia = { id: "mia", roles: ["manager"] };

/** Stands for confidential words; it is in every payload, reason, error and output of these tests. */
const SECRET = "the secret words";

let refuseOnce = true;
const confidential = letter("letter.confidential", {
  approvalClass: "A2",
  sensitivityClass: "S2",
  retry: { initialIntervalMs: 0 },
  execute: async (input, { idempotencyKey: key }) => {
    if (refuseOnce) {
      refuseOnce = false;
      throw new Error(`no mailbox for ${input.to}: ${SECRET}`);
    }
    sent.push({ commitment: "letter.confidential", input, key });
    return { id: SECRET };
  },
  compensate: async ({ reason }) => reason,
});

const State = Annotation.Root({ letter: Annotation<Letter>, answer: Annotation<string> });
/** Sends a letter that two people sign, then asks one more person, and undoes all when they say no. */
const life = defineGraph({
  name: "life",
  version: 1,
  durability: "durable",
  commitments: [confidential],
  onReject: "compensate",
  graph: new StateGraph(State)
    .addNode("send", async (state) => {
      const outcome = await commit(confidential, state.letter, { evidence: { source: SECRET } });
      return { answer: outcome.status };
    })
    .addNode("ask", async () => {
      const answer = await requestDecision({ name: "letter.keep", payload: { about: SECRET }, sensitivityClass: "S2" });
      return { answer: answer.status };
    })
    .addEdge(START, "send")
    .addEdge("send", "ask")
    .addEdge("ask", END),
});

const failing = defineGraph({
  name: "failing",
  version: 1,
  durability: "durable",
  graph: new StateGraph(State)
    .addNode("fail", () => {
      throw Object.assign(new Error(SECRET), { code: `no account for ${SECRET}` });
    })
    .addEdge(START, "fail"),
});

const cs: Countersign = await countersign({ database: pool, graphs: [life, failing], backend: postgres() });
afterAll(() => cs.close());

/** Lives the whole life of a thread: edit, approve, a failed attempt, success, rejection, compensation. */
async function live(): Promise<string> {
  refuseOnce = true;
  const input = { letter: { to: `${SECRET}@example.org`, text: SECRET }, answer: "" };
  const { pending, threadId } = await cs.start(life, input as never);
  const proposed = onlyOne(pending);
  const reason = SECRET;
  const { digest } = await cs.edit(proposed.id, { text: `${SECRET}!` }, { by: lou, digest: proposed.digest, reason });
  await cs.approve(proposed.id, { by: hana, digest, reason });
  await cs.work({ until: "idle" });
  const asked = onlyOne(await cs.pending({ threadId }));
  await cs.reject(asked.id, { by: mia, reason, reasonCode: "second-thoughts" });
  await cs.work({ until: "idle" });
  expect((await cs.result(threadId)).status).toBe("compensated");
  return threadId;
}

/** A thread with a chain of `length` rows. */
async function aChain(length: number): Promise<string> {
  const threadId = await insertThread(pool, {});
  const id = await insertIntent(pool, { thread_id: threadId });
  await pool.query(
    `do $$ begin for n in 3..${length} loop
       update countersign.execution_intents set revision = revision + 1 where id = '${id}';
     end loop; end $$`,
  );
  return threadId;
}

describe("the chain of a thread", () => {
  beforeAll(async () => {
    await live();
    await live();
  });

  it("holds, each thread's by itself", async () => {
    const threadId = await live();
    expect(await cs.audit.verify()).toEqual([]);
    expect(await cs.audit.verify({ threadId })).toEqual([]);
    const rows = await cs.audit.list(threadId);
    expect(rows.map(({ seq }) => seq)).toEqual(rows.map((_, index) => index + 1));
    expect(new Set(rows.map((row) => row.threadId))).toEqual(new Set([threadId]));
  });

  it("is empty for a thread that nobody knows", async () => {
    expect(await cs.audit.list("nobody")).toEqual([]);
    expect(await cs.audit.verify({ threadId: "nobody" })).toEqual([]);
  });

  it("can be verified offline, from rows that were exported as JSON", async () => {
    const exported: AuditRow[] = JSON.parse(JSON.stringify(await cs.audit.list(await live())));
    expect(exported.length).toBeGreaterThan(10);
    expect(exported[0]?.at).toBeTypeOf("string");
    expect(verifyAuditChain(exported)).toBeUndefined();
    const forged = exported.map((row) => (row.seq === 4 ? { ...row, actorId: "eve" } : row));
    expect(verifyAuditChain(forged)).toMatchObject({ seq: 4, problem: "row changed" });
  });

  it("holds over more rows than one page has", async () => {
    const threadId = await aChain(2_001);
    expect((await cs.audit.list(threadId)).map(({ seq }) => seq)).toEqual(
      Array.from({ length: 2_001 }, (_, n) => n + 1),
    );
    expect(await cs.audit.verify({ threadId })).toEqual([]);
  });

  it("holds when many threads write at once", async () => {
    const threadIds = await Promise.all(Array.from({ length: 8 }, () => insertThread(pool, {})));
    const ids = await Promise.all(threadIds.map((thread_id) => insertIntent(pool, { thread_id })));
    const bump = () =>
      pool.query(
        `update countersign.execution_intents i set revision = revision + 1 from
           (select id from countersign.execution_intents where id = any($1) order by id for no key update) locked
         where i.id = locked.id`,
        [ids],
      );
    await Promise.all(Array.from({ length: 30 }, bump));
    for (const threadId of threadIds) expect(await cs.audit.list(threadId)).toHaveLength(32);
    expect(await cs.audit.verify()).toEqual([]);
  });

  it("is not reported as broken while it grows: verify() looks at a system that goes on", async () => {
    const threadId = await insertThread(pool, {});
    const id = await insertIntent(pool, { thread_id: threadId });
    let written = 0;
    let verifying = true;
    const writing = (async () => {
      for (; verifying; written++) {
        await pool.query("update countersign.execution_intents set revision = revision + 1 where id = $1", [id]);
      }
    })();
    const found = [];
    for (let round = 0; round < 30 || written < 30; round++) found.push(...(await cs.audit.verify({ threadId })));
    verifying = false;
    await writing;
    expect(found).toEqual([]);
    expect(await cs.audit.list(threadId)).toHaveLength(written + 2);
  });
});

it("hashes every text alike in Postgres and in JavaScript: quotes, newlines, emoji and all", async () => {
  const threadId = await insertThread(pool, { tenant: 'a "tenant"\n' });
  const id = await insertIntent(pool, { thread_id: threadId, correlation_id: "c\\1\u2028", tenant: 'a "tenant"\n' });
  const nasty = fc.constantFrom(
    '"',
    "\\",
    "\\u0041",
    "\n",
    "\r\n",
    "\t",
    "\b\f",
    "\u001f",
    "\u007f",
    "\u2028",
    "😀",
    "/",
    "null",
  );
  const text = fc
    .oneof(
      fc.string({ unit: "binary" }),
      fc.string({ unit: "grapheme" }),
      fc.array(nasty).map((parts) => parts.join("")),
    )
    .filter((value) => !value.includes("\u0000"));
  await fc.assert(
    fc.asyncProperty(text, fc.option(text), async (actor, reasonCode) => {
      await pool.query(
        `update countersign.execution_intents
         set revision = revision + 1, changed_by = $2, reason_code = $3, action = 'x' where id = $1`,
        [id, actor, reasonCode],
      );
      const [previous, last] = (await cs.audit.list(threadId)).slice(-2) as [AuditRow, AuditRow];
      expect(last).toMatchObject({ actorId: actor, reasonCode });
      expect(auditHash(previous.hash, last)).toBe(last.hash);
    }),
    { numRuns: 150 },
  );
  expect(await cs.audit.verify({ threadId })).toEqual([]);
});

describe("tampering past the triggers is found:", () => {
  /** As a superuser may: with the guards switched off. */
  async function tamper(statement: string, threadId: string): Promise<void> {
    const client = await pool.connect();
    try {
      await client.query("begin; set local session_replication_role = replica");
      await client.query(`${statement.replaceAll("$log", "countersign.audit_log where thread_id = $1")}`, [threadId]);
      await client.query("commit");
    } finally {
      client.release();
    }
  }

  it.each([
    [
      "a changed actor",
      "update countersign.audit_log set actor_id = 'eve' where thread_id = $1 and seq = 3",
      3,
      "row changed",
    ],
    [
      "a changed time",
      "update countersign.audit_log set at = at + interval '1 microsecond' where thread_id = $1 and seq = 1",
      1,
      "row changed",
    ],
    [
      "a changed outcome",
      "update countersign.audit_log set outcome = 'succeeded' where thread_id = $1 and seq = 5",
      5,
      "row changed",
    ],
    [
      "a reason that was taken away",
      "update countersign.audit_log set reason_code = null where thread_id = $1 and seq = 4",
      4,
      "row changed",
    ],
    [
      "a changed hash",
      "update countersign.audit_log set hash = '\\x00' where thread_id = $1 and seq = 2",
      2,
      "row changed",
    ],
    ["a row that was taken out", "delete from $log and seq = 3", 3, "row missing"],
    ["a first row that was taken out", "delete from $log and seq = 1", 1, "row missing"],
    ["an end that was cut off", "delete from $log and seq > 3", 4, "end missing"],
    ["a chain that was emptied", "delete from $log", 1, "end missing"],
  ])("%s", async (_name, statement, seq, problem) => {
    const threadId = await insertThread(pool, {});
    const id = await insertIntent(pool, { thread_id: threadId, reason_code: "because" });
    const update = (set: string) => pool.query(`update countersign.execution_intents set ${set} where id = $1`, [id]);
    await update("revision = revision + 1");
    await update("revision = revision + 1");
    await update("status = 'rejected'");
    expect(await cs.audit.verify({ threadId })).toEqual([]);
    await tamper(statement, threadId);
    expect(await cs.audit.verify({ threadId })).toEqual([{ threadId, seq, problem }]);
  });

  it("and nothing else is reported as broken", async () => {
    const [broken, whole] = [await aChain(5), await aChain(5)];
    await tamper("delete from $log and seq = 2", broken);
    expect(await cs.audit.verify({ threadId: whole })).toEqual([]);
    expect((await cs.audit.verify()).map(({ threadId }) => threadId)).toContain(broken);
    expect((await cs.audit.verify()).map(({ threadId }) => threadId)).not.toContain(whole);
  });

  it("and what is left is listed once each, in order", async () => {
    const threadId = await aChain(5);
    await tamper("delete from $log and seq = 2", threadId);
    expect((await cs.audit.list(threadId)).map(({ seq }) => seq)).toEqual([1, 3, 4, 5]);
  });
});

describe("the audit trail of a full life", () => {
  beforeAll(() =>
    // Notes every change of status as it happens, apart from the audit trail, to compare the two.
    pool.query(`
      create table moves (n bigint generated always as identity, intent_id uuid, status text);
      create function note_move() returns trigger language plpgsql as $$ begin
        if tg_op = 'INSERT' then insert into public.moves (intent_id, status) values (new.id, new.status);
        elsif new.status <> old.status then insert into public.moves (intent_id, status) values (new.id, new.status);
        end if;
        return null;
      end $$;
      create trigger note_move after insert or update on countersign.execution_intents
        for each row execute function note_move();`),
  );

  it("has exactly one row for every change of status, and decisions beside them", async () => {
    const threadId = await live();
    const rows = await cs.audit.list(threadId);
    const intents = await cs.intents(threadId);
    expect(intents.map(({ kind }) => kind).sort()).toEqual(["compensation", "compensation", "decision", "effect"]);
    for (const { id } of intents) {
      const { rows: moves } = await pool.query("select status from moves where intent_id = $1 order by n", [id]);
      const own = rows.filter((row) => row.intentId === id);
      const changes = own.filter((row, at) => row.outcome !== own[at - 1]?.outcome);
      expect(changes.map((row) => row.outcome)).toEqual(moves.map(({ status }) => status));
      const others = own.filter((row) => !changes.includes(row));
      expect(others.every((row) => row.action.startsWith("decision."))).toBe(true);
    }
  });

  it("tells that life, step by step", async () => {
    const rows = await cs.audit.list(await live());
    const told = rows.map((row) => `${row.action} → ${row.outcome} by ${row.actorType}`);
    expect(told).toMatchInlineSnapshot(`
      [
        "thread.started → running by automated_workflow",
        "intent.recorded → awaiting_decision by automated_workflow",
        "decision.edited → awaiting_decision by human",
        "decision.approved → runnable by human",
        "intent.claimed → dispatched by executor_system",
        "intent.attempted → runnable by executor_system",
        "intent.claimed → dispatched by executor_system",
        "intent.succeeded → succeeded by executor_system",
        "intent.recorded → awaiting_decision by automated_workflow",
        "decision.rejected → rejected by human",
        "compensation.started → awaiting_external by automated_workflow",
        "intent.recorded → runnable by automated_workflow",
        "compensation.started → compensating by automated_workflow",
        "thread.compensating → compensating by automated_workflow",
        "intent.claimed → dispatched by executor_system",
        "compensation.succeeded → succeeded by executor_system",
        "intent.compensated → compensated by automated_workflow",
        "compensation.succeeded → succeeded by automated_workflow",
        "thread.compensated → compensated by automated_workflow",
      ]
    `);
  });

  it("names both digests of an edit, and who made it (rule 11)", async () => {
    const rows = await cs.audit.list(await live());
    const [recorded, edited] = rows.filter(
      ({ action }) => action === "intent.recorded" || action === "decision.edited",
    );
    expect(recorded?.digest).toMatch(/^[0-9a-f]{64}$/);
    expect(edited?.digest).toMatch(/^[0-9a-f]{64}$/);
    expect(edited?.digest).not.toBe(recorded?.digest);
    expect(edited).toMatchObject({ actorId: "lou", actorType: "human", classes: "A2/R2/S2/gated/external_message" });
  });

  it("holds no word of any payload, reason, evidence, error or output (rule 6)", async () => {
    await live();
    const failed = await cs.start(failing, {} as never);
    expect(failed.status).toBe("failed");
    const { rows } = await pool.query<{ row: string }>("select t::text as row from countersign.audit_log t");
    expect(rows.length).toBeGreaterThan(20);
    expect(rows.filter(({ row }) => row.includes(SECRET))).toEqual([]);
    const { rows: kept } = await pool.query("select from countersign.execution_intents t where t::text like $1", [
      `%${SECRET}%`,
    ]);
    expect(kept.length).toBeGreaterThan(0);
  });

  it("is the same stream that events() tells live, and ends with the thread", async () => {
    const threadId = await live();
    const told: AuditRow[] = [];
    for await (const row of cs.events(threadId)) told.push(row);
    expect(told).toEqual(await cs.audit.list(threadId));
  });
});
