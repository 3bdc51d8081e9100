import { Annotation, END, interrupt, MemorySaver, START, StateGraph, task } from "@langchain/langgraph";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { postgres } from "../../src/backends/postgres/index.ts";
import {
  type AnyGraph,
  type CommitOptions,
  type Countersign,
  commit,
  compensate,
  countersign,
  defineGraph,
  type GraphSource,
  isWait,
  requestDecision,
  sleep,
  waitForEvent,
} from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";
import {
  approve,
  approveAll,
  Log,
  type Messenger,
  messenger,
  mia,
  oneNode,
  pendingText,
  pendingTexts,
  scribe,
} from "../support/messenger.ts";

const { pool } = await testDatabase();

const open = (...graphs: AnyGraph[]): Promise<Countersign> =>
  countersign({ database: pool, graphs, backend: postgres(), onError: () => {} });

const idsOf = async (cs: Countersign, threadId: string): Promise<string[]> =>
  (await cs.intents(threadId)).map((intent) => intent.id);
const actionsOf = async (cs: Countersign, threadId: string): Promise<string[]> =>
  (await cs.audit.list(threadId)).map((row) => row.action);
const logOf = async (cs: Countersign, threadId: string): Promise<string[]> =>
  (await cs.result<{ log: string[] }>(threadId)).output?.log ?? [];
const failed = (code: string, message = "") => ({
  status: "failed",
  pending: [],
  error: { code, message: expect.stringContaining(message) },
});

/** A node of which something is to be mended: what it does is read on each pass. */
function mendable({ send }: Pick<Messenger, "send">, others: readonly Messenger[] = []) {
  const code = { current: async (): Promise<string> => "" };
  const commitments = [send, ...others.map((other) => other.send)];
  return { code, graph: oneNode(async () => ({ log: [await code.current()] }), commitments) };
}

describe("a pass over a node", () => {
  it("finds what earlier passes recorded, in another process too, and makes no new intents", async () => {
    const { send, calls } = messenger();
    let passes = 0;
    const graph = oneNode(async () => {
      passes++;
      const outcomes = await Promise.all([commit(send, { text: "one" }), commit(send, { text: "two" })]);
      return { log: outcomes.map((outcome) => outcome.status) };
    }, [send]);
    await using here = await open(graph);
    await using there = await open(graph);
    const { threadId } = await here.start(graph, { log: [] });
    const recorded = await idsOf(here, threadId);

    await approve(here, await pendingText(here, threadId, "one"));
    await there.work({ until: "idle" });
    expect([passes, await idsOf(here, threadId)]).toEqual([2, recorded]);
    await approve(here, await pendingText(here, threadId, "two"));
    await there.work({ until: "idle" });

    expect([passes, await idsOf(here, threadId)]).toEqual([3, recorded]);
    expect(await logOf(here, threadId)).toEqual(["succeeded", "succeeded"]);
    expect(calls).toEqual(["one", "two"]);
  });
});

describe("a pass over a node that proposes other words", () => {
  it("ends with what was approved, and the difference is audited", async () => {
    const { send, calls } = messenger();
    let words = 0;
    const graph = oneNode(async () => {
      const outcome = await commit(send, { text: `draft ${++words}` });
      return { log: [`${outcome.status} ${outcome.input.text}`] };
    }, [send]);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await approveAll(cs, threadId);

    expect(words).toBe(2);
    expect(calls).toEqual(["draft 1"]);
    expect(await logOf(cs, threadId)).toEqual(["succeeded draft 1"]);
    expect(await actionsOf(cs, threadId)).toContain("intent.diverged");
    expect(await cs.audit.verify({ threadId })).toEqual([]);
  });

  it("than a reviewer edited does not differ", async () => {
    const { send, calls } = messenger();
    const graph = oneNode(async () => {
      const outcome = await commit(send, { text: "draft" }, { onDivergence: "error" });
      return { log: [outcome.input.text] };
    }, [send]);
    await using cs = await open(graph);
    const { threadId, pending } = await cs.start(graph, { log: [] });

    await cs.edit(String(pending[0]?.id), { text: "edited" }, { by: mia, digest: String(pending[0]?.digest) });
    await cs.work({ until: "idle" });

    expect(await logOf(cs, threadId)).toEqual(["edited"]);
    expect(calls).toEqual(["edited"]);
    expect(await actionsOf(cs, threadId)).not.toContain("intent.diverged");
  });

  it("fails the thread where the node asks for that", async () => {
    const { send, calls } = messenger();
    let words = 0;
    const graph = oneNode(async () => {
      await commit(send, { text: `draft ${++words}` }, { onDivergence: "error" });
      return {};
    }, [send]);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await approveAll(cs, threadId);

    const end = cs.result(threadId);
    await expect(end).rejects.toMatchObject({ code: "THREAD_FAILED", facts: { error: "NON_DETERMINISM" } });
    expect(calls).toEqual(["draft 1"]);
  });

  it("is avoided by LangGraph's task() around the model, which is asked once", async () => {
    const { send, calls } = messenger();
    let words = 0;
    const model = task("model", async () => `draft ${++words}`);
    const graph = oneNode(async () => {
      const { status } = await commit(send, { text: await model() }, { onDivergence: "error" });
      return { log: [status] };
    }, [send]);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["succeeded"]);
    expect([words, calls]).toEqual([1, ["draft 1"]]);
  });
});

describe("a pass over a node that reaches another wait", () => {
  it.each([
    ["another commitment", (_: Messenger, other: Messenger) => commit(other.send, { text: "pay" })],
    [
      "another version",
      ({ send }: Messenger) => commit({ ...send, version: 2, workflowKey: `${send.name}@2` }, { text: "pay" }),
    ],
    ["another kind of wait", ({ send }: Messenger) => requestDecision({ name: send.name, payload: { text: "pay" } })],
  ])("than the recorded one, %s, fails, and goes on after a mend and a retry", async (_what, reach) => {
    const first = messenger();
    const other = messenger();
    const second = { ...first, send: { ...first.send, version: 2, workflowKey: `${first.send.name}@2` } };
    const { code, graph } = mendable(first, [other, second]);
    const right = async () => (await commit(first.send, { text: "pay" })).status;
    code.current = right;
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });
    const recorded = await idsOf(cs, threadId);

    code.current = async () => (await reach(first, other)).status;
    await approveAll(cs, threadId);
    const end = cs.result(threadId);
    await expect(end).rejects.toMatchObject({ code: "THREAD_FAILED", facts: { error: "NON_DETERMINISM" } });
    code.current = right;
    await cs.retry(threadId);
    await cs.work({ until: "idle" });

    expect(await logOf(cs, threadId)).toEqual(["succeeded"]);
    expect(await idsOf(cs, threadId)).toEqual(recorded);
    expect([first.calls, other.calls]).toEqual([["pay"], []]);
  });
});

describe("a wait that is swallowed", () => {
  /** Lets the event loop go round, so that whatever is due now happens. */
  const aWhile = async () => {
    for (let round = 0; round < 3; round++) await new Promise(setImmediate);
  };

  it.each<[string, (wait: () => Promise<unknown>) => Promise<unknown>]>([
    [
      "by try and catch",
      async (wait) => {
        try {
          await wait();
        } catch {}
      },
    ],
    ["by Promise.allSettled", (wait) => Promise.allSettled([wait()])],
    ["by Promise.race", (wait) => Promise.race([wait(), "default"])],
    [
      "because nobody awaits it",
      async (wait) => {
        void wait();
      },
    ],
    [
      "because nobody awaits it, in a node that goes on for a while",
      async (wait) => {
        void wait();
        await aWhile();
      },
    ],
  ])("%s fails the thread and records nothing, until the node is mended", async (_how, swallow) => {
    const messages = messenger();
    const { code, graph } = mendable(messages);
    const ask = () => commit(messages.send, { text: "pay" });
    code.current = async () => {
      await swallow(ask);
      return "went on";
    };
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    expect(run).toMatchObject(failed("WAIT_SWALLOWED"));
    expect(await cs.intents(run.threadId)).toEqual([]);
    code.current = async () => (await ask()).status;
    await cs.retry(run.threadId);
    await approveAll(cs, run.threadId);
    expect(await logOf(cs, run.threadId)).toEqual(["succeeded"]);
    expect(messages.calls).toEqual(["pay"]);
  });
});

describe("a wait that is caught", () => {
  it("by the node around its subgraph fails the thread, and the step does not end", async () => {
    const messages = messenger();
    const inner = new StateGraph(Log)
      .addNode("ask", async () => ({ log: [(await commit(messages.send, { text: "pay" })).status] }))
      .addEdge(START, "ask")
      .compile();
    const { code, graph } = mendable(messages);
    code.current = async () => {
      try {
        await inner.invoke({ log: [] });
      } catch {}
      return "went on";
    };
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    // The subgraph's own step is persisted by then, and with it what it asked for: it is found again.
    expect(run).toMatchObject({ status: "failed", error: { code: "WAIT_SWALLOWED" } });
    expect((await cs.state(run.threadId)).next).toEqual(["node"]);
    const recorded = await idsOf(cs, run.threadId);
    code.current = async () => (await inner.invoke({ log: [] })).log.join();
    await cs.retry(run.threadId);
    await approveAll(cs, run.threadId);
    expect(await logOf(cs, run.threadId)).toEqual(["succeeded"]);
    expect(await idsOf(cs, run.threadId)).toEqual(recorded);
    expect(messages.calls).toEqual(["pay"]);
  });

  it("and rethrown where isWait() recognises it goes on as usual", async () => {
    const { send } = messenger();
    const graph = oneNode(async () => {
      try {
        return { log: [(await commit(send, { text: "pay" })).status] };
      } catch (error) {
        if (isWait(error)) throw error;
        return { log: ["went on"] };
      }
    }, [send]);
    await using cs = await open(graph);
    const { threadId, status } = await cs.start(graph, { log: [] });

    expect(status).toBe("waiting");
    await approveAll(cs, threadId);

    expect(await logOf(cs, threadId)).toEqual(["succeeded"]);
  });

  it("and turned into an error of the node's own fails with that, and records nothing", async () => {
    const { send } = messenger();
    const graph = oneNode(async () => {
      await commit(send, { text: "pay" }).catch(() => {
        throw new RangeError("could not pay");
      });
      return {};
    }, [send]);
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    expect(run).toMatchObject(failed("RangeError", "could not pay"));
    expect(await cs.intents(run.threadId)).toEqual([]);
  });
});

const { send, calls } = messenger();
const undeclared = messenger();
const forbidden = messenger({ actionClass: "forbidden" });
const waits: [string, () => Promise<unknown>][] = [
  ["commit()", () => commit(send, { text: "pay" })],
  ["commit() with wait: false", () => commit(send, { text: "pay" }, { wait: false })],
  ["requestDecision()", () => requestDecision({ name: "pay", payload: {} })],
  ["waitForEvent()", () => waitForEvent("paid")],
  ["sleep()", () => sleep(1)],
  ["compensate()", () => compensate({ reason: "no" })],
];
const builderOf = (wait: () => Promise<unknown>) =>
  new StateGraph(Log)
    .addNode("node", async () => {
      await wait();
      return { log: ["went on"] };
    })
    .addEdge(START, "node")
    .addEdge("node", END);

describe("a wait where none can be recorded", () => {
  it.each(waits)("%s is refused outside a graph run", async (_call, wait) => {
    await expect(wait()).rejects.toMatchObject({ code: "BOUNDARY" });
  });

  it.each(waits)("%s is refused in an exit graph", async (_call, wait) => {
    const graph = defineGraph({ name: "ephemeral", version: 1, durability: "exit", graph: builderOf(wait) });
    await using cs = await open(graph);

    await expect(cs.start(graph, { log: [] })).rejects.toMatchObject({ code: "BOUNDARY" });
  });

  it.each(waits)("%s is refused in an async graph", async (_call, wait) => {
    const lossWindow = "one step of a draft";
    const graph = defineGraph({ name: "behind", version: 1, durability: "async", lossWindow, graph: builderOf(wait) });
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    expect(run).toMatchObject(failed("BOUNDARY", "durability is 'async'"));
    expect(await cs.intents(run.threadId)).toEqual([]);
  });

  it.each(waits)("%s is refused in a subgraph without a checkpointer", async (_call, wait) => {
    const graph = oneNode(async () => {
      const inner = builderOf(wait).compile({ checkpointer: false });
      return { log: (await inner.invoke({ log: [] })).log };
    }, [send]);
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    expect(run).toMatchObject(failed("BOUNDARY", "checkpointer: false"));
    expect(await cs.intents(run.threadId)).toEqual([]);
  });

  it("is refused after its node has ended", async () => {
    let endNode = () => {};
    const ended = new Promise<void>((resolve) => {
      endNode = resolve;
    });
    let late: Promise<unknown> = Promise.resolve();
    const builder = new StateGraph(Log)
      .addNode("first", async () => {
        late = ended.then(() => commit(send, { text: "pay" }, { wait: false }));
        return { log: ["first"] };
      })
      .addNode("second", async () => {
        endNode();
        const said = await late.then(String, (error) => error.code);
        return { log: [said] };
      })
      .addEdge(START, "first")
      .addEdge("first", "second")
      .addEdge("second", END);
    const graph = defineGraph({ name: "late", version: 1, durability: "durable", commitments: [send], graph: builder });
    await using cs = await open(graph);

    const { threadId } = await cs.start(graph, { log: [] });

    expect(await logOf(cs, threadId)).toEqual(["first", "BOUNDARY"]);
  });
});

describe("a commitment that the graph may not make", () => {
  it("is refused if the graph does not declare it", async () => {
    const graph = oneNode(async () => ({ log: [(await commit(undeclared.send, { text: "pay" })).status] }), [send]);
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    expect(run).toMatchObject(failed("BOUNDARY"));
    expect(await cs.intents(run.threadId)).toEqual([]);
  });

  it("is refused if it is forbidden, and the attempt is audited", async () => {
    const graph = oneNode(async () => {
      await commit(forbidden.send, { text: "secrets" });
      return {};
    }, [forbidden.send]);
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    expect(run).toMatchObject(failed("BOUNDARY"));
    expect(await cs.intents(run.threadId)).toEqual([]);
    const denied = (await cs.audit.list(run.threadId)).find((row) => row.action === "policy.denied");
    expect(denied).toMatchObject({ commitment: forbidden.send.workflowKey, reasonCode: "forbidden" });
    expect(JSON.stringify(denied)).not.toContain("secrets");
  });

  it("is refused if a node calls its handler by itself", async () => {
    const graph = oneNode(async () => {
      await send.handlers.execute({ text: "pay" }, {} as never);
      return {};
    }, [send]);
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    expect(run).toMatchObject(failed("BOUNDARY"));
    expect(calls).toEqual([]);
  });
});

describe("defineGraph", () => {
  const { send } = messenger();
  const node = async () => ({ log: [] });
  const plain = () => new StateGraph(Log).addNode("node", node).addEdge(START, "node");
  const durable = { name: "refused", version: 1, durability: "durable" } as const;

  it("refuses a node whose results are cached", () => {
    const graph = new StateGraph(Log).addNode("node", node, { cachePolicy: true }).addEdge(START, "node");

    expect(() => defineGraph({ ...durable, graph })).toThrow(/caches its node 'node'/);
  });

  it("refuses a subgraph without a checkpointer, however deep", () => {
    const inner = plain().compile({ checkpointer: false });
    const middle = new StateGraph(Log).addNode("inner", inner).addEdge(START, "inner").compile();
    const outer = new StateGraph(Log).addNode("middle", middle).addEdge(START, "middle");
    const shallow = new StateGraph(Log).addNode("inner", inner).addEdge(START, "inner");

    for (const graph of [outer, shallow]) {
      expect(() => defineGraph({ ...durable, graph: graph as never })).toThrow(/checkpointer: false/);
    }
  });

  it("leaves what only a factory shows to countersign(), which refuses the same", async () => {
    const uncheckpointed = plain().compile({ checkpointer: false });
    const outer = () => new StateGraph(Log).addNode("inner", uncheckpointed).addEdge(START, "inner");
    const sources: [RegExp, GraphSource][] = [
      [/checkpointer: false/, ({ checkpointer }) => outer().compile({ checkpointer })],
      [/static breakpoints/, ({ checkpointer }) => plain().compile({ checkpointer, interruptBefore: ["node"] })],
      [/was not compiled with the checkpointer/, () => plain().compile({ checkpointer: new MemorySaver() })],
      [/was not compiled with the checkpointer/, () => plain().compile()],
    ];
    for (const [problem, graph] of sources)
      await expect(open(defineGraph({ ...durable, graph }))).rejects.toThrow(problem);
  });

  it("refuses an async graph that does not say what may be lost", () => {
    const untold = { name: "untold", version: 1, durability: "async", lossWindow: " ", graph: plain() } as const;

    expect(() => defineGraph(untold)).toThrow(/lossWindow/);
    // @ts-expect-error the types ask for it, too
    expect(() => defineGraph({ name: "untold", version: 1, durability: "async", graph: plain() })).toThrow(
      /lossWindow/,
    );
  });

  it.each(["exit", "async"] as const)("refuses commitments on an %s graph", (durability) => {
    const graph = { name: "unsafe", version: 1, durability, lossWindow: "a draft", graph: plain() };

    for (const effects of [{ commitments: [send] }, { onReject: "compensate" }, { onFailure: "compensate" }]) {
      expect(() => defineGraph({ ...graph, ...effects } as never)).toThrow(/Only a 'durable' graph/);
    }
  });

  it("refuses commitments on an exit or async graph by its types", () => {
    const define = (): unknown[] => [
      // @ts-expect-error an exit graph declares no commitments
      defineGraph({ name: "unsafe", version: 1, durability: "exit", commitments: [send], graph: plain() }),
      // @ts-expect-error nor does an async one
      defineGraph({
        name: "unsafe",
        version: 1,
        durability: "async",
        lossWindow: "-",
        commitments: [send],
        graph: plain(),
      }),
      // @ts-expect-error there is nothing to compensate
      defineGraph({ name: "unsafe", version: 1, durability: "exit", onReject: "compensate", graph: plain() }),
    ];

    expect(define).toThrow();
  });
});

describe("an input that cannot be recorded", () => {
  const { send } = messenger({ input: z.any() as never });
  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  const notJson: [string, unknown][] = [
    ["a Date", new Date(0)],
    ["NaN", Number.NaN],
    ["Infinity", Number.POSITIVE_INFINITY],
    ["a bigint", 1n],
    ["a function", () => "pay"],
    ["a symbol", Symbol("pay")],
    ["a Map", new Map()],
    ["an instance of a class", new (class Money {})()],
    ["a cycle", cycle],
    ["a NUL character", "pay\u0000"],
    ["a lone surrogate", "pay \ud800"],
    ["a NUL character in a key", { "pay\u0000": 1 }],
    ["a lone surrogate in a key", { "\udc00": 1 }],
    ["a __proto__ key", JSON.parse('{"__proto__": {"admin": true}}')],
    ["undefined in an array", [undefined]],
    ["a hole in an array", new Array(1)],
  ];

  it.each(notJson)("because it holds %s fails the node, and records nothing", async (_what, value) => {
    const graph = oneNode(async () => {
      await commit(send, { text: { deep: [value] } } as never);
      return {};
    }, [send]);
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    expect(run).toMatchObject(failed("PAYLOAD_NOT_JSON"));
    expect(await cs.intents(run.threadId)).toEqual([]);
  });

  it("because its schema refuses it fails the node without telling its values, and records nothing", async () => {
    const strict = messenger();
    const graph = oneNode(async () => {
      await commit(strict.send, { text: 4711 } as never);
      return {};
    }, [strict.send]);
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    expect(run).toMatchObject(failed("INPUT_INVALID"));
    expect(run.error?.message).toContain("text");
    expect(run.error?.message).not.toContain("4711");
    expect(await cs.intents(run.threadId)).toEqual([]);
  });

  it.each<[string, () => Promise<unknown>]>([
    ["the evidence of a commitment", () => commit(send, { text: "pay" }, { evidence: { at: new Date(0) } })],
    ["the payload of a decision", () => requestDecision({ name: "pay", payload: { at: new Date(0) } })],
    ["the evidence of a decision", () => requestDecision({ name: "pay", payload: {}, evidence: { at: new Date(0) } })],
    ["the reason of an undoing", () => compensate({ reason: "pay\u0000" })],
  ])("is refused as %s, too", async (_where, wait) => {
    const graph = oneNode(async () => {
      await wait();
      return {};
    }, [send]);
    await using cs = await open(graph);

    const run = await cs.start(graph, { log: [] });

    expect(run).toMatchObject(failed("PAYLOAD_NOT_JSON"));
    expect(await cs.intents(run.threadId)).toEqual([]);
  });
});

const Draft = Annotation.Root({ text: Annotation<string>, status: Annotation<string> });
/** Drafts other words each time, asks to send them, and says what became of it. */
function drafting() {
  const { send, calls } = messenger();
  let drafts = 0;
  const graph = defineGraph({
    name: `drafting-${send.name}`,
    version: 1,
    durability: "durable",
    commitments: [send],
    graph: new StateGraph(Draft)
      .addNode("draft", async () => ({ text: `draft ${++drafts}` }))
      .addNode("send", async ({ text }) => ({ status: (await commit(send, { text })).status }))
      .addEdge(START, "draft")
      .addEdge("draft", "send")
      .addEdge("send", END),
  });
  return { graph, calls };
}
async function snapshotBefore(cs: Countersign, threadId: string, node: string): Promise<string> {
  for await (const snapshot of cs.history(threadId)) if (snapshot.next[0] === node) return snapshot.checkpointId;
  throw new Error(`no snapshot before '${node}'`);
}
async function textAt(cs: Countersign, threadId: string, checkpointId: string): Promise<unknown> {
  for await (const snapshot of cs.history(threadId)) {
    if (snapshot.checkpointId === checkpointId) return (snapshot.values as { text?: string }).text;
  }
  return "gone";
}

describe("a fork", () => {
  it("makes new intents, and cancels what the abandoned branch still asked for", async () => {
    const { graph, calls } = drafting();
    await using cs = await open(graph);
    const { threadId, pending } = await cs.start(graph, {});
    const [abandoned] = pending;

    const checkpointId = await snapshotBefore(cs, threadId, "draft");
    expect(await cs.fork(threadId, { checkpointId, by: "noa" })).toBe("waiting");

    expect(await pendingTexts(cs, threadId)).toEqual(["draft 2"]);
    expect(await cs.intent(String(abandoned?.id))).toMatchObject({ status: "cancelled" });
    const late = cs.approve(String(abandoned?.id), { by: mia, digest: String(abandoned?.digest) });
    await expect(late).rejects.toMatchObject({ code: "INTENT_ENDED" });
    await approveAll(cs, threadId);
    expect(calls).toEqual(["draft 2"]);
    expect(await cs.audit.list(threadId)).toContainEqual(
      expect.objectContaining({ action: "thread.forked", actorId: "noa" }),
    );
  });

  it("keeps its own state, and leaves the old branch's as it was", async () => {
    const { graph, calls } = drafting();
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, {});
    const old = await snapshotBefore(cs, threadId, "send");

    // Both branches write the same channel in the same step.
    await cs.fork(threadId, { checkpointId: await snapshotBefore(cs, threadId, "draft") });
    await approveAll(cs, threadId);

    expect((await cs.result(threadId)).output).toEqual({ text: "draft 2", status: "succeeded" });
    expect(await textAt(cs, threadId, old)).toBe("draft 1");
    expect(calls).toEqual(["draft 2"]);
  });

  it("goes on from the values that it is given", async () => {
    const { graph, calls } = drafting();
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, {});
    const old = await snapshotBefore(cs, threadId, "send");

    await cs.fork(threadId, { checkpointId: old, values: { text: "by hand" }, asNode: "draft" });
    await approveAll(cs, threadId);

    expect((await cs.result(threadId)).output).toEqual({ text: "by hand", status: "succeeded" });
    expect(await textAt(cs, threadId, old)).toBe("draft 1");
    expect(calls).toEqual(["by hand"]);
  });
});

describe("a fork, of what has ended or from nowhere,", () => {
  it("of a thread that has ended does again what it is asked to, and what was done stays on record", async () => {
    const { graph, calls } = drafting();
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, {});
    await approveAll(cs, threadId);

    await cs.fork(threadId, { checkpointId: await snapshotBefore(cs, threadId, "send") });
    expect(await pendingTexts(cs, threadId)).toEqual(["draft 1"]);
    expect(calls).toEqual(["draft 1"]);
    await approveAll(cs, threadId);

    expect(calls).toEqual(["draft 1", "draft 1"]);
    const intents = await cs.intents(threadId);
    expect(intents.map((intent) => intent.status)).toEqual(["succeeded", "succeeded"]);
    expect(new Set(intents.map((intent) => intent.idempotencyKey)).size).toBe(2);
  });

  it("from a checkpoint that the thread does not have changes nothing", async () => {
    const { graph } = drafting();
    await using cs = await open(graph);
    const { threadId, pending } = await cs.start(graph, {});

    const fork = cs.fork(threadId, { checkpointId: "1f000000-0000-6000-8000-000000000000" });

    await expect(fork).rejects.toMatchObject({ code: "THREAD_STATE" });
    expect(await cs.pending({ threadId })).toEqual(pending);
  });
});

describe("who proposes", () => {
  const by = (actorType: "observer_agent" | "recommender_agent" | "automated_workflow", options: CommitOptions) => {
    const { send, calls } = scribe();
    const graph = defineGraph({
      name: `by-${send.name}`,
      version: 1,
      durability: "durable",
      actorType,
      commitments: [send],
      graph: new StateGraph(Log)
        .addNode("node", async () => ({ log: [(await commit(send, { text: "note" }, options as never)).status] }))
        .addEdge(START, "node")
        .addEdge("node", END),
    });
    return { graph, calls };
  };

  it.each([
    ["observer_agent", {}],
    ["recommender_agent", {}],
    ["recommender_agent", { wait: false }],
  ] as const)("an %s needs a person even for an A0 effect (%j)", async (actorType, options) => {
    const { graph, calls } = by(actorType, options);
    await using cs = await open(graph);
    const { threadId } = await cs.start(graph, { log: [] });

    await cs.work({ until: "idle" });
    expect(calls).toEqual([]);
    expect(await cs.intents(threadId)).toMatchObject([
      { status: "awaiting_decision", actorType, classes: { approvalClass: "A0" }, requirement: { minApprovers: 1 } },
    ]);
    await approveAll(cs, threadId);

    expect(calls).toEqual(["note"]);
  });

  it("a workflow does not", async () => {
    const { graph, calls } = by("automated_workflow", {});
    await using cs = await open(graph);
    await cs.start(graph, { log: [] });

    await cs.work({ until: "idle" });

    expect(calls).toEqual(["note"]);
  });
});

it("what is pending comes from the outbox: LangGraph shows one of two waits in a subgraph", async () => {
  const { send } = messenger();
  const nested = (ask: (text: string) => Promise<unknown>) => {
    const inner = new StateGraph(Log)
      .addNode("left", async () => ({ log: [String(await ask("left"))] }))
      .addNode("right", async () => ({ log: [String(await ask("right"))] }))
      .addEdge(START, "left")
      .addEdge(START, "right")
      .compile();
    return new StateGraph(Log).addNode("inner", inner).addEdge(START, "inner").addEdge("inner", END);
  };
  const plain = nested(async (text) => interrupt(text)).compile({ checkpointer: new MemorySaver() });
  const graph = defineGraph({
    name: "two-in-a-subgraph",
    version: 1,
    durability: "durable",
    commitments: [send],
    graph: nested(async (text) => (await commit(send, { text })).status),
  });
  await using cs = await open(graph);

  const shown = await plain.invoke({ log: [] }, { configurable: { thread_id: "plain" } });
  const run = await cs.start(graph, { log: [] });

  expect(shown).toMatchObject({ __interrupt__: [{ value: "right" }] });
  expect(run.pending.map((intent) => intent.payload)).toEqual(
    expect.arrayContaining([{ text: "left" }, { text: "right" }]),
  );
  expect(run.pending).toHaveLength(2);
});
