import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { z } from "zod";
import { read, write } from "./files.ts";
import { type LedgerLine, Order } from "./life.ts";
import { randomOf } from "./random.ts";

/*
 * The outside world of a run, in a process of its own that is not killed. What it did is in its
 * ledger on disk. Kinds that start with `keyed` honour idempotency keys; the others do what they are
 * asked to, each time they are asked. It is slow at times, and at times it answers with an error
 * although it did the work, or before it did.
 */
const { dir, seed } = z.object({ dir: z.string(), seed: z.number() }).parse(JSON.parse(process.argv[2] ?? ""));
const random = randomOf(seed);
const done = new Map(read(dir, "ledger").map((line) => [placeOf(line), line]));

const Request = z.object({
  kind: z.string(),
  verb: z.enum(["do", "undo"]),
  key: z.string(),
  intentId: z.string(),
  order: Order,
});

const app = new Hono();
app.post("/effects", async (context) => {
  const line = Request.parse(await context.req.json());
  if (random.percent(10)) await delay(random.between(5, 150));
  if (random.percent(4)) return context.json({ error: "not done" }, 503);
  if (!line.kind.startsWith("keyed") || !done.has(placeOf(line))) {
    write(dir, "ledger", line);
    done.set(placeOf(line), line);
  }
  if (random.percent(4)) return context.json({ error: "done, but you will not know" }, 500);
  return context.json({ ref: `ref-${line.key}`, receipt: randomUUID() });
});
app.get("/effects/:key", (context) => {
  const found = [...done.values()].find((line) => line.verb === "do" && line.key === context.req.param("key"));
  return context.json({ found: found !== undefined });
});

const server = serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 }, ({ port }) => {
  console.log(JSON.stringify({ url: `http://127.0.0.1:${port}` }));
});
process.once("SIGTERM", () => server.close(() => process.exit(0)));

function placeOf({ kind, verb, key }: Pick<LedgerLine, "kind" | "verb" | "key">): string {
  return JSON.stringify([kind, verb, key]);
}
