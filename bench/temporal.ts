import { Client, Connection } from "@temporalio/client";
import { NativeConnection } from "@temporalio/worker";
import { countersign, type DurableBackend, route } from "countersign";
import { CountersignSaver } from "countersign/checkpointers";
import { postgres } from "countersign/postgres";
import { temporal } from "countersign/temporal";
import { startTemporal } from "../dev/temporal-server/start.ts";
import { BareOutbox } from "./bare-outbox.ts";
import { type BenchDatabase, withDatabase } from "./bench-database.ts";
import { type CarriedOut, launchHandWritten } from "./hand-written.ts";
import { Countdown, inFlight } from "./in-flight.ts";
import { committing, inTurn, ratioOf, runToEnd, Stopwatch } from "./latency.ts";
import { atLeast, atMost, type BenchResult, sideBySide } from "./measure.ts";
import { ServerCalls } from "./server-calls.ts";

const IN_FLIGHT = 24;
const INTENTS = 48;
const TASK_QUEUE = "bench";

/**
 * The Temporal backend beside the embedded one, on one database in one run: intents per second, and how
 * soon a handler starts. And beside a workflow written by hand with three activities, on the same server:
 * the events in the history and the calls to the server that an intent takes.
 */
export async function benchTemporal(): Promise<BenchResult[]> {
  const calls = ServerCalls.install();
  const server = await startTemporal();
  const connection = await NativeConnection.connect({ address: server.address });
  const observer = await Connection.connect({ address: server.address });
  try {
    return await withDatabase(async (database) => {
      await new CountersignSaver(database.pool()).setup();
      const outbox = await BareOutbox.open(database.pool());
      const bench = new TemporalBench({
        database,
        outbox,
        connection,
        calls,
        observer: new Client({ connection: observer }),
      });
      try {
        return [...(await bench.latency()), ...(await bench.besidePostgres()), ...(await bench.besideHandWritten())];
      } finally {
        await outbox.close();
      }
    });
  } finally {
    await observer.close();
    await connection.close();
    await server.stop();
  }
}

interface TemporalBenchInput {
  readonly database: BenchDatabase;
  readonly outbox: BareOutbox;
  /** The client's and the workers'. */
  readonly connection: NativeConnection;
  readonly calls: ServerCalls;
  /** Looks at workflows from outside; its calls are not counted. */
  readonly observer: Client;
}

class TemporalBench {
  readonly #input: TemporalBenchInput;

  constructor(input: TemporalBenchInput) {
    this.#input = input;
  }

  /** One application with two graphs of the same shape, routed to one backend each. */
  async latency(): Promise<BenchResult[]> {
    const watch = new Stopwatch();
    const [workflows, embedded] = [committing(watch, "workflows"), committing(watch, "embedded")];
    await using cs = await countersign({
      database: this.#input.database.pool(),
      graphs: [workflows, embedded],
      backend: route({ "workflows.*": this.#temporal(), default: postgres() }),
    });
    const stop = new AbortController();
    const working = cs.work({ signal: stop.signal });
    // The first one waits for the worker to start, once.
    await runToEnd(cs, workflows, watch);
    const begun = await inTurn(
      () => runToEnd(cs, workflows, watch),
      () => runToEnd(cs, embedded, watch),
      { budgetMs: 8_000, warmUp: 3 },
    );
    stop.abort();
    await working;
    return [
      atMost(10, "commit → handler start, p50, beside postgres()", "ms", ratioOf(begun, 0.5)),
      atMost(10, "commit → handler start, p90, beside postgres()", "ms", ratioOf(begun, 0.9)),
    ];
  }

  async besidePostgres(): Promise<BenchResult[]> {
    const measured = await sideBySide({
      rounds: 11,
      budgetMs: 4_000,
      ours: () => this.#intentsPerSecond(this.#temporal()),
      peer: () => this.#intentsPerSecond(postgres({ concurrency: IN_FLIGHT })),
    });
    return [atLeast(0.1, "record → settled, beside postgres()", "intents/s", measured)];
  }

  async besideHandWritten(): Promise<BenchResult[]> {
    const ours = await this.#costOf((onExecute) => this.#ours(onExecute));
    const { database, connection } = this.#input;
    const peer = await this.#costOf((onExecute) =>
      launchHandWritten({ pool: database.pool(), connection, atOnce: IN_FLIGHT, onExecute }),
    );
    const beside = (what: keyof Cost) => ({ ours: ours[what], peer: peer[what], ratio: ours[what] / peer[what] });
    return [
      atLeast(1, "record → workflow ended, beside a hand-written one", "intents/s", beside("perSecond")),
      atMost(1, "history of an intent, beside a hand-written workflow", "events", beside("events")),
      atMost(1, "calls to the server for an intent, beside a hand-written workflow", "calls", beside("calls")),
    ];
  }

  /** With all settled and the worker stopped, as in `outbox`: what it waits for when it stops is counted, too. */
  async #intentsPerSecond(backend: DurableBackend): Promise<number> {
    const { outbox } = this.#input;
    const threads = await outbox.threads(INTENTS + 1);
    let countdown = new Countdown(1);
    const worker = outbox.work(IN_FLIGHT, () => countdown.count(), backend);
    // A worker of Temporal's takes a while to start, once.
    await outbox.record(threads.pop() as string, backend.name);
    await countdown.done;
    countdown = new Countdown(INTENTS);
    const start = performance.now();
    await inFlight(IN_FLIGHT, INTENTS, (index) => outbox.record(threads[index] as string, backend.name));
    await countdown.done;
    await worker.stop();
    return (INTENTS * 1_000) / (performance.now() - start);
  }

  async #ours(onExecute: () => void): Promise<CarriedOut> {
    const { outbox } = this.#input;
    const backend = this.#temporal();
    const threads = await outbox.threads(INTENTS + 1);
    const { stop } = outbox.work(IN_FLIGHT, onExecute, backend);
    return { start: () => outbox.record(threads.pop() as string, backend.name), stop };
  }

  /** What intents take from their record to the end of their workflows, with pollers that wait already. */
  async #costOf(launch: (onExecute: () => void) => Promise<CarriedOut>): Promise<Cost> {
    const { calls, observer } = this.#input;
    let countdown = new Countdown(1);
    const side = await launch(() => countdown.count());
    const ended = (id: string) => observer.workflow.getHandle(id).result();
    const first = await side.start();
    await countdown.done;
    await ended(first);
    countdown = new Countdown(INTENTS);
    const ids: string[] = [];
    calls.take();
    const start = performance.now();
    await inFlight(IN_FLIGHT, INTENTS, async () => ids.push(await side.start()));
    await countdown.done;
    await Promise.all(ids.map(ended));
    const perSecond = (INTENTS * 1_000) / (performance.now() - start);
    const sent = calls.take();
    const histories = await Promise.all(ids.map((id) => observer.workflow.getHandle(id).describe()));
    await side.stop();
    const events = histories.reduce((sum, { historyLength }) => sum + historyLength, 0);
    return { perSecond, events: events / INTENTS, calls: sent / INTENTS };
  }

  #temporal(): DurableBackend {
    return temporal({ connection: this.#input.connection, taskQueue: TASK_QUEUE, concurrency: IN_FLIGHT });
  }
}

/** What an intent takes, on average. */
interface Cost {
  readonly perSecond: number;
  readonly events: number;
  readonly calls: number;
}
