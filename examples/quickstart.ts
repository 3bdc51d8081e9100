import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { commit, countersign, defineCommitment, defineGraph } from "countersign";
import { pglite } from "countersign/pglite";
import { postgres } from "countersign/postgres";
import { z } from "zod";

// 1. What may happen outside, how grave it is, and how it is done. Only the backend ever calls `execute`.
const sendOffer = defineCommitment({
  name: "offer.send",
  version: 1,
  sideEffectClass: "external_message",
  approvalClass: "A1", // one manager signs off
  reversibilityClass: "R2", // costly to undo
  sensitivityClass: "S1", // internal data
  input: z.object({ to: z.string(), price: z.number() }),
  output: z.object({ messageId: z.string() }),
  execute: async ({ to, price }, { idempotencyKey }) => {
    console.log(`sending ${to} an offer at ${price} (key ${idempotencyKey})`);
    return { messageId: "m-1" };
  },
});

// 2. An ordinary LangGraph graph. `commit` proposes, and returns when the outcome is known.
const State = Annotation.Root({ to: Annotation<string>, sentAt: Annotation<number>, status: Annotation<string> });
const offers = defineGraph({
  name: "offers",
  version: 1,
  durability: "durable",
  commitments: [sendOffer],
  graph: new StateGraph(State)
    .addNode("offer", async ({ to }) => {
      const outcome = await commit(sendOffer, { to, price: 120 });
      // As it was sent: a reviewer may have edited it.
      return { status: outcome.status, sentAt: outcome.input.price };
    })
    .addEdge(START, "offer")
    .addEdge("offer", END),
});

// 3. Propose, decide, carry out. Each line could run in another process, on another day.
await using cs = await countersign({ database: pglite(), graphs: [offers], backend: postgres() });
const run = await cs.start(offers, { to: "ada@example.org" });
console.log(run.status, run.pending[0]?.payload); // waiting { to: 'ada@example.org', price: 120 }

const [intent] = await cs.pending({ role: "manager" });
if (intent === undefined) throw new Error("nothing is pending");
await cs.edit(intent.id, { price: 99 }, { by: { id: "mia", roles: ["manager"] }, digest: intent.digest });

await cs.work({ until: "idle" }); // a service calls cs.work() once, and leaves it running
console.log((await cs.result(run.threadId)).output); // { to: 'ada@example.org', status: 'succeeded', sentAt: 99 }
