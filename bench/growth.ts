import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { type Countersign, countersign, defineGraph, requestDecision } from "countersign";
import { CountersignSaver } from "countersign/checkpointers";
import { postgres } from "countersign/postgres";
import { fillHistory } from "../test/support/fill-history.ts";
import { BareOutbox } from "./bare-outbox.ts";
import { type BenchDatabase, withDatabase } from "./bench-database.ts";
import { atMost, type BenchResult, type Measured, sideBySide } from "./measure.ts";

/** A page of the inbox, so that both schemas have as much to show. */
const PAGE = 100;

/** What makes filling quick and changes nothing of what is measured afterwards; a given server keeps its own. */
const SERVER = ["wal_level=minimal", "max_wal_senders=0", "max_wal_size=8GB", "shared_buffers=1GB"];

const State = Annotation.Root({ ended: Annotation<string> });
const deciding = defineGraph({
  name: "deciding",
  version: 1,
  durability: "durable",
  graph: new StateGraph(State)
    .addNode("ask", async () => {
      const { status } = await requestDecision({ name: "bench.decide", payload: { n: 1 } });
      return { ended: status };
    })
    .addEdge(START, "ask")
    .addEdge("ask", END),
});

/**
 * What the hot paths take with a long history and a full inbox (ours), beside a schema that holds one page
 * of the inbox and nothing else (the peer).
 * @param ended how many ended intents; a tenth as many are pending.
 */
export function benchGrowth(ended: number): Promise<BenchResult[]> {
  return withDatabase(async (database) => {
    await using full = await Side.open(database, "countersign_full", { ended, pending: Math.ceil(ended / 10) });
    await using empty = await Side.open(database, "countersign_empty", { ended: 0, pending: PAGE });
    const compare = (measure: (side: Side) => Promise<number>): Promise<Measured> =>
      sideBySide({ rounds: 200, budgetMs: 5_000, ours: () => measure(full), peer: () => measure(empty) });
    return [
      atMost(1.2, "claim", "ms", await compare((side) => side.claim())),
      atMost(1.2, "first page of the inbox", "ms", await compare((side) => side.inbox())),
      atMost(1.2, "drive", "ms", await compare((side) => side.drive())),
    ];
  }, SERVER);
}

/** One of the two schemas, with all that is measured on it. Times in milliseconds. */
class Side implements AsyncDisposable {
  readonly #cs: Countersign;
  readonly #outbox: BareOutbox;
  readonly #thread: string;

  private constructor(cs: Countersign, outbox: BareOutbox, thread: string) {
    this.#cs = cs;
    this.#outbox = outbox;
    this.#thread = thread;
  }

  static async open(
    database: BenchDatabase,
    schema: string,
    holds: { readonly ended: number; readonly pending: number },
  ): Promise<Side> {
    const pool = database.pool();
    await new CountersignSaver(pool, { schema }).setup();
    await fillHistory(pool, schema, holds);
    const cs = await countersign({ database: pool, schema, graphs: [deciding], backend: postgres() });
    const outbox = await BareOutbox.open(pool, schema);
    const [thread] = await outbox.threads(1);
    return new Side(cs, outbox, thread as string);
  }

  async claim(): Promise<number> {
    await this.#outbox.record(this.#thread);
    return this.#outbox.claim();
  }

  async inbox(): Promise<number> {
    const start = performance.now();
    const page = await this.#cs.pending({ limit: PAGE });
    if (page.length !== PAGE) throw new Error(`The page has ${page.length} requests`);
    return performance.now() - start;
  }

  /** From a decision that has been made to the end of the graph. */
  async drive(): Promise<number> {
    const { threadId, pending } = await this.#cs.start(deciding, { ended: "" } as never);
    const [intent] = pending;
    if (intent === undefined) throw new Error("nothing is pending");
    await this.#cs.approve(intent.id, { by: { id: "mia", roles: ["manager"] }, digest: intent.digest });
    const start = performance.now();
    const status = await this.#cs.drive(threadId);
    if (status !== "completed") throw new Error(`The thread is ${status}`);
    return performance.now() - start;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#outbox.close();
    await this.#cs.close();
  }
}
