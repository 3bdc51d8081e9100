import pg from "pg";
import { postgres } from "../../src/backends/postgres/index.ts";
import { countersign } from "../../src/index.ts";
import { lifeGraph, type Point } from "./killed-life.ts";

/** What a child process is told, as JSON in its first argument. */
export interface ChildInput {
  readonly url: string;
  readonly id: string;
  readonly file: string;
  readonly semantics?: "at-least-once" | "at-most-once";
  /** Starts the thread; without it the child only works. */
  readonly begin?: boolean;
  /** Says that it is there, and waits for its end. */
  readonly stopAt?: Point;
  /** Dies by SIGKILL instead of sending this statement, counted from when it is open. */
  readonly dieAtStatement?: number;
}

const input = JSON.parse(process.argv[2] ?? "") as ChildInput;

async function reach(point: Point): Promise<void> {
  if (point !== input.stopAt) return;
  console.log(point);
  await new Promise(() => setInterval(() => {}, 60_000));
}

let statements: number | undefined;

class MortalClient extends pg.Client {
  // biome-ignore lint/suspicious/noExplicitAny: `query` has nine overloads; every call passes through as it came
  override query(...args: any[]): any {
    if (statements !== undefined && ++statements === input.dieAtStatement) process.kill(process.pid, "SIGKILL");
    // biome-ignore lint/suspicious/noExplicitAny: see above
    return (super.query as any)(...args);
  }
}

const pool = new pg.Pool({ connectionString: input.url, Client: MortalClient });
const graph = lifeGraph({ ...input, reach });
const cs = await countersign({ database: pool, graphs: [graph], backend: postgres() });
statements = 0;
if (input.begin === true) await cs.start(graph, { sent: [] }, { threadId: input.id });
await reach("after the start");
await cs.work({ until: "idle" });
await cs.close();
await pool.end();
console.log(`idle after ${statements} statements`);
