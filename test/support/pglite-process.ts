import { postgres } from "../../src/backends/postgres/index.ts";
import { pglite } from "../../src/database/pglite.ts";
import { type Countersign, countersign, isCountersignError } from "../../src/index.ts";
import { graphOf, letter } from "./requests.ts";

/*
 * A process of its own for test/integration/pglite.test.ts: `tsx pglite-process.ts <folder>`. It says
 * in one line of JSON whether it got the folder; then it starts threads, one after the other, and says
 * each one's id as soon as start() has returned, until it is killed.
 */

const say = (line: object): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};

async function open(folder: string): Promise<Countersign | undefined> {
  try {
    const cs = await countersign({ database: pglite(folder), graphs: [graph], backend: postgres() });
    say({ opened: true, pid: process.pid });
    return cs;
  } catch (error) {
    if (!isCountersignError(error)) throw error;
    say({ opened: false, code: error.code, facts: error.facts });
    return undefined;
  }
}

const graph = graphOf(letter("letter.one"));
const cs = await open(String(process.argv[2]));
for (let count = 0; cs !== undefined; count++) {
  const { threadId } = await cs.start(graph, { letter: { to: "a@example.org", text: `number ${count}` } } as never);
  say({ started: threadId, text: `number ${count}` });
}
