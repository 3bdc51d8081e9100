import type { Statement } from "../src/database/client.ts";

/** A checkpoint with its channel values and task writes, in the form that `PostgresSaver` decodes. */
export interface CheckpointTupleRow {
  readonly thread_id: string;
  readonly checkpoint_ns: string;
  readonly checkpoint_id: string;
  readonly parent_checkpoint_id: string | null;
  readonly checkpoint: { readonly v: number };
  readonly metadata: unknown;
  readonly channel_values: unknown;
  readonly pending_writes: unknown;
}

/** Where a thread's checkpoints are: its own, or those of a subgraph of it. */
export interface HeadPlace {
  readonly threadId: string;
  readonly ns: string;
}

/** A head with the place in the list that it was asked for at. */
export type HeadRow = CheckpointTupleRow & { readonly place: number };

/**
 * The newest checkpoint of each of these threads; a thread without one has no row. Newest is what was
 * written last, by the database's own count: `checkpoint_id` is a uuid6 of some machine's clock, and a
 * machine that is behind would hide what it wrote (trap T3).
 */
export function headsStatement(schema: string, places: readonly HeadPlace[]): Statement {
  return {
    name: `${schema}.heads`,
    text: `select asked.place::int, head.*
      from unnest($1::text[], $2::text[]) with ordinality as asked(thread_id, ns, place)
      cross join lateral (
        ${select(schema)} where cp.thread_id = asked.thread_id and cp.checkpoint_ns = asked.ns order by cp.seq desc limit 1
      ) head`,
    values: [places.map(({ threadId }) => threadId), places.map(({ ns }) => ns)],
  };
}

export function checkpointStatement(schema: string, threadId: string, ns: string, checkpointId: string): Statement {
  return {
    name: `${schema}.checkpoint`,
    text: `${select(schema)} where thread_id = $1 and checkpoint_ns = $2 and checkpoint_id = $3`,
    values: [threadId, ns, checkpointId],
  };
}

export interface ListInput {
  /** A `where …` clause with its parameters, or nothing. */
  readonly where: string;
  readonly values: readonly unknown[];
  readonly before: string | undefined;
  readonly limit: number | undefined;
}

export function listStatement(schema: string, { where, values, before, limit }: ListInput): Statement {
  const all = [...values];
  const clauses = where === "" ? [] : [where.replace(/^WHERE /, "")];
  if (before !== undefined) {
    all.push(before);
    clauses.push(`seq < (select min(b.seq) from ${schema}.checkpoints b
      where b.checkpoint_id = $${all.length} and b.thread_id = cp.thread_id and b.checkpoint_ns = cp.checkpoint_ns)`);
  }
  if (limit !== undefined) all.push(limit);
  return {
    text: `${select(schema)} ${clauses.length > 0 ? `where ${clauses.join(" and ")}` : ""}
      order by seq desc ${limit === undefined ? "" : `limit $${all.length}`}`,
    values: all,
  };
}

const select = (schema: string): string => `
  select thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata,
    (select array_agg(array[blob.channel::bytea, blob.type::bytea, blob.blob])
     from jsonb_each_text(cp.checkpoint -> 'channel_versions') version
     join ${schema}.checkpoint_blobs blob on blob.thread_id = cp.thread_id
       and blob.checkpoint_ns = cp.checkpoint_ns and blob.channel = version.key and blob.version = version.value
    ) as channel_values,
    (select array_agg(array[w.task_id::bytea, w.channel::bytea, w.type::bytea, w.blob] order by w.task_id, w.idx)
     from ${schema}.checkpoint_writes w where w.thread_id = cp.thread_id
       and w.checkpoint_ns = cp.checkpoint_ns and w.checkpoint_id = cp.checkpoint_id
    ) as pending_writes
  from ${schema}.checkpoints cp`;
