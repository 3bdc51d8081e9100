import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { Client } from "@temporalio/client";
import { type NativeConnection, Worker } from "@temporalio/worker";
import type pg from "pg";
import type { handWritten } from "./hand-written-workflow.ts";

export interface HandWrittenActivities {
  claim(id: string): Promise<number>;
  execute(id: string): Promise<string>;
  settle(id: string, token: number, ref: string): Promise<void>;
}

/** Intents and somebody who carries them out on Temporal. */
export interface CarriedOut {
  /** Records an intent and sees to it that a workflow starts under its id, which it returns. */
  start(): Promise<string>;
  stop(): Promise<void>;
}

export interface HandWrittenInput {
  readonly pool: pg.Pool;
  readonly connection: NativeConnection;
  /** Activities at once. */
  readonly atOnce: number;
  readonly onExecute: () => void;
}

const TASK_QUEUE = "hand-written";

/** The peer: a table of its own on the same database, and three activities that claim a row, do it and settle it. */
export async function launchHandWritten({
  pool,
  connection,
  atOnce,
  onExecute,
}: HandWrittenInput): Promise<CarriedOut> {
  await pool.query(`create table if not exists hand_written
    (id uuid primary key, status text not null default 'runnable', token int not null default 0, ref text)`);
  const worker = await Worker.create({
    connection,
    taskQueue: TASK_QUEUE,
    workflowsPath: fileURLToPath(new URL("hand-written-workflow.ts", import.meta.url)),
    activities: activitiesOn(pool, onExecute),
    maxConcurrentActivityTaskExecutions: atOnce,
  });
  const running = worker.run();
  const client = new Client({ connection });
  return {
    async start() {
      const id = randomUUID();
      await pool.query({ name: "record", text: "insert into hand_written (id) values ($1)", values: [id] });
      await client.workflow.start<typeof handWritten>("handWritten", {
        ...{ workflowId: id, taskQueue: TASK_QUEUE, args: [id] },
        workflowIdReusePolicy: "REJECT_DUPLICATE",
      });
      return id;
    },
    async stop() {
      worker.shutdown();
      await running;
    },
  };
}

function activitiesOn(pool: pg.Pool, onExecute: () => void): HandWrittenActivities {
  return {
    async claim(id) {
      const { rows } = await pool.query<{ token: number }>({
        name: "claim",
        text: "update hand_written set status = 'dispatched', token = token + 1 where id = $1 and ref is null returning token",
        values: [id],
      });
      if (rows[0] === undefined) throw new Error(`${id} is not to be claimed`);
      return rows[0].token;
    },
    async execute(id) {
      onExecute();
      return id;
    },
    async settle(id, token, ref) {
      const { rowCount } = await pool.query({
        name: "settle",
        text: "update hand_written set status = 'succeeded', ref = $3 where id = $1 and token = $2",
        values: [id, token, ref],
      });
      if (rowCount !== 1) throw new Error(`${id} was claimed by somebody else`);
    },
  };
}
