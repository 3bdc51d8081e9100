import { createInterface } from "node:readline";
import { type AuditRow, countersign, isCountersignError } from "countersign";
import { type PartnerInput, partnerApproval, partnerCommitments } from "countersign/graphs";
import { pglite } from "countersign/pglite";
import { postgres } from "countersign/postgres";
import { temporal } from "countersign/temporal";
import { decideOn, type Life } from "./people.ts";
import { connectProviders } from "./providers.ts";
import { receiveWebhooks } from "./webhook.ts";
import type { WorldAddresses } from "./world/start.ts";

/** What this process is told on its command line. */
export interface OfficeOptions {
  readonly world: WorldAddresses;
  /** A Postgres URL, or the folder of a PGlite. */
  readonly database: string;
  readonly schema: string;
  readonly threadId: string;
  readonly life: Life;
  /** `host:port` of a Temporal server, where that is to carry out; the embedded worker does else. */
  readonly temporalAddress?: string;
}

/** What it says on stdout, a line each: every change of the thread that it sees, and how it ended. */
export type OfficeMessage =
  | { readonly point: string }
  | { readonly ended: { status: string; stage: string; intents: number; timeline: AuditRow[]; auditHolds: boolean } };

/*
 * The process of the demo that may be killed at any point: it starts the thread or goes on with it,
 * plays the people, and works. At each point it waits for a line on stdin, so that the demo can kill
 * it right there; whatever else it was doing meanwhile goes on.
 */
const options = JSON.parse(process.argv[2] ?? "{}") as OfficeOptions;
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
process.stdin.once("end", () => process.exit(1));

const { world, threadId, life } = options;
const commitments = partnerCommitments(connectProviders(world));
const graph = partnerApproval(commitments);
const cs = await countersign({
  database: options.database.startsWith("postgres") ? options.database : pglite(options.database),
  schema: options.schema,
  graphs: [graph],
  backend:
    options.temporalAddress === undefined
      ? postgres()
      : temporal({ address: options.temporalAddress, taskQueue: options.schema }),
  leaseMs: 1_000,
  pollIntervalMs: 200,
});
const webhooks = await receiveWebhooks(cs, commitments.sendTermSheet);
await post(`${world.esignUrl}/control/webhook`, { url: webhooks.url });

await startOrGoOn();
const working = cs.work();
let signed = false;
for await (const event of cs.events(threadId)) {
  await reach(event.commitment?.includes("@") && event.intentId ? `${event.action} ${event.commitment}` : event.action);
  await act();
}
await end();

async function startOrGoOn(): Promise<void> {
  const input: PartnerInput = {
    partnerId: threadId,
    name: "Northwind Traders",
    email: `${threadId}@northwind.example`,
    type: "referral",
    annualVolume: 2_400_000,
  };
  try {
    await cs.start(graph, input, { threadId, correlationId: `deal-${threadId}` });
  } catch (error) {
    if (!isCountersignError(error) || error.code !== "THREAD_EXISTS") throw error;
  }
}

/** Does what is due: a person's decision, or the partner's signature. */
async function act(): Promise<void> {
  for (const intent of await cs.pending({ threadId })) {
    await decideOn(cs, intent, life).catch((error: unknown) => {
      if (!isCountersignError(error)) throw error;
    });
  }
  const intents = await cs.intents(threadId);
  const sent = intents.find(
    (intent) => intent.commitment === "term-sheet.send" && intent.status === "awaiting_external",
  );
  if (sent?.externalRef == null || signed) return;
  signed = true;
  await post(`${world.esignUrl}/envelopes/${sent.externalRef}/sign`, { signedBy: "Nora Northwind" });
}

async function reach(point: string): Promise<void> {
  say({ point });
  await answers.next();
}

async function end(): Promise<void> {
  const result = await cs.result<{ stage: string }>(threadId);
  say({
    ended: {
      status: result.status,
      stage: result.output?.stage ?? "",
      intents: (await cs.intents(threadId)).length,
      timeline: await cs.audit.list(threadId),
      auditHolds: (await cs.audit.verify({ threadId })).length === 0,
    },
  });
  await answers.next();
  webhooks.close();
  await cs.close();
  await working;
  process.exit(0);
}

function say(message: OfficeMessage): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

async function post(url: string, body: unknown): Promise<void> {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
}
