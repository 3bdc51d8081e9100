import type { Statement } from "../src/database/client.ts";
import { insertIntentsSql, proposalToRow } from "../src/database/intents.ts";
import { PackedBytes } from "../src/database/packed-bytes.ts";
import type { WriteCall, WriteRow } from "./write-call.ts";

/**
 * One statement, and so one commit, for everything that some calls of `put` and `putWrites` want
 * written: checkpoints, blobs, task writes, and the intents that the tasks propose (G1), whose audit
 * rows and notification the database adds itself. It returns the calls that were allowed to write.
 *
 * The fence (G7): the row of the thread is locked, so that a lease cannot move meanwhile, and a call
 * counts only with the token that the row holds, while the thread is running. A call without a token
 * counts only where there is no such row: a thread that another program keeps in the same tables.
 */
export function writeStatement(schema: string, calls: readonly WriteCall[]): Statement {
  const packer = new PackedBytes();
  const callRows = calls.map(({ threadId, leaseToken }, call) => ({ call, thread_id: threadId, token: leaseToken }));
  const writes = distinct(calls).map(({ call, row }) => ({
    call,
    ns: row.ns,
    id: row.checkpointId,
    task: row.taskId,
    idx: row.idx,
    channel: row.channel,
    type: row.type,
    ...packer.add(row.blob),
  }));
  const blobs = calls.flatMap((item, call) =>
    item.blobs.map((row) => ({
      call,
      ns: row.ns,
      channel: row.channel,
      version: row.version,
      type: row.type,
      ...(row.blob === undefined ? {} : packer.add(row.blob)),
    })),
  );
  const checkpoints = calls.flatMap((item, call) => item.checkpoints.map((row) => ({ call, ...row })));
  const proposals = calls
    .flatMap((item, call) => item.proposals.map((proposal) => ({ call, proposal })))
    .map(({ call, proposal }, place) => proposalToRow(call, proposal, place));
  const withIntents = proposals.length > 0;

  return {
    name: `${schema}.write.${withIntents ? "intents" : "plain"}`,
    text: withIntents ? textWithIntents(schema) : textWithoutIntents(schema),
    values: [
      JSON.stringify(callRows),
      JSON.stringify(writes),
      JSON.stringify(blobs),
      JSON.stringify(checkpoints),
      packer.pack(),
      ...(withIntents ? [JSON.stringify(proposals)] : []),
    ],
  };
}

/** The rows of all calls, each primary key once: the last special write counts, the first of the others. */
function distinct(calls: readonly WriteCall[]): { readonly call: number; readonly row: WriteRow }[] {
  const rows = new Map<string, { readonly call: number; readonly row: WriteRow }>();
  calls.forEach(({ threadId, leaseToken, writes }, call) => {
    for (const row of writes) {
      // A call that the fence refuses must not stand for one that it lets through.
      const key = JSON.stringify([threadId, leaseToken, row.ns, row.checkpointId, row.taskId, row.idx]);
      if (row.idx < 0 || !rows.has(key)) rows.set(key, { call, row });
    }
  });
  return [...rows.values()];
}

const textWithoutIntents = (schema: string): string => `${writes(schema)} select call from allowed`;
const textWithIntents = (schema: string): string =>
  `${writes(schema)}, intent as (${insertIntentsSql(schema, "$6::jsonb", "allowed")}) select call from allowed`;

const writes = (schema: string): string => `
  with call as materialized (
    select * from jsonb_to_recordset($1::jsonb) as c(call int, thread_id text, token int)
  ), fence as materialized (
    select thread_id, case when status = 'running' then lease_token else -1 end as token
    from ${schema}.threads where thread_id = any(array(select thread_id from call))
    order by thread_id for no key update
  ), allowed as materialized (
    select call.call, call.thread_id from call left join fence using (thread_id)
    where call.token is not distinct from fence.token
  ), task_write as (
    insert into ${schema}.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob)
    select thread_id, w.ns, w.id, w.task, w.idx, w.channel, w.type, substring($5::bytea from w.at for w.len)
    from jsonb_to_recordset($2::jsonb) as w(
      call int, ns text, id text, task text, idx int, channel text, type text, at int, len int)
    join allowed using (call)
    on conflict (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) do update
      set channel = excluded.channel, type = excluded.type, blob = excluded.blob
      where excluded.idx < 0
  ), blob as (
    insert into ${schema}.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    select thread_id, b.ns, b.channel, b.version, b.type, substring($5::bytea from b.at for b.len)
    from jsonb_to_recordset($3::jsonb) as b(
      call int, ns text, channel text, version text, type text, at int, len int)
    join allowed using (call)
    on conflict do nothing
  ), checkpoint as (
    insert into ${schema}.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
    select thread_id, c.ns, c.id, c.parent, c.checkpoint, c.metadata
    from jsonb_to_recordset($4::jsonb) as c(
      call int, ns text, id text, parent text, checkpoint jsonb, metadata jsonb)
    join allowed using (call) order by call
    on conflict (thread_id, checkpoint_ns, checkpoint_id) do update
      set checkpoint = excluded.checkpoint, metadata = excluded.metadata
  )`;
