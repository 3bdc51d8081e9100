import { postgres } from "../../src/backends/postgres/index.ts";
import { countersign, isCountersignError } from "../../src/index.ts";

/*
 * A process of its own for test/bad-days/deploys.test.ts: `tsx starting-process.ts <url>`. It opens the
 * database when it is told to on stdin, so that several do so at once, and says in a line how that went.
 */

console.log("ready");
process.stdin.once("data", async () => {
  try {
    const cs = await countersign({ database: String(process.argv[2]), graphs: [], backend: postgres() });
    console.log(`opened, ${(await cs.pending()).length} pending`);
    await cs.close();
  } catch (error) {
    console.log(isCountersignError(error) ? error.code : String(error));
  }
  process.stdin.destroy();
});
