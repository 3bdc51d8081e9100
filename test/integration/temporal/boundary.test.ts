import { fileURLToPath } from "node:url";
import { Client, Connection } from "@temporalio/client";
import type { Payload, PayloadCodec } from "@temporalio/common";
import { bundleWorkflowCode, DefaultLogger } from "@temporalio/worker";
import { afterAll, afterEach, expect, it, vi } from "vitest";
import { type TemporalBackendOptions, temporal } from "../../../src/backends/temporal/index.ts";
import { type AnyGraph, countersign } from "../../../src/index.ts";
import { testDatabase } from "../../support/database.ts";
import { effect, graphOf, type TestOutcome, uniqueName } from "../../support/effects.ts";
import { testTemporal } from "../../support/temporal.ts";

const { pool } = await testDatabase();
const { address } = await testTemporal();
const connection = await Connection.connect({ address });
const client = new Client({ connection });
afterAll(() => connection.close());
afterEach(() => void vi.unstubAllGlobals());

const errors: unknown[] = [];
afterEach(() => expect(errors.splice(0)).toEqual([]));

const open = (graphs: AnyGraph[], options: TemporalBackendOptions = {}) =>
  countersign({
    database: pool,
    graphs,
    backend: temporal({ address, taskQueue: uniqueName("queue"), ...options }),
    onError: (error) => errors.push(error),
  });

const inSupport = (file: string) => fileURLToPath(new URL(`../../support/${file}`, import.meta.url));

it("cannot be bundled into a workflow", async () => {
  const workflowsPath = inSupport("graph-in-workflow.ts");
  const logger = new DefaultLogger("ERROR", () => {});
  await expect(bundleWorkflowCode({ workflowsPath, logger })).rejects.toThrow();
}, 120_000);

it("does not open inside a workflow", async () => {
  vi.stubGlobal("__TEMPORAL_ACTIVATOR__", {});
  await expect(open([])).rejects.toMatchObject({ code: "BOUNDARY" });
});

it("lets a workflow of the application's own carry out a commitment that it owns", async () => {
  const announcements: string[] = [];
  const send = effect({ execute: async () => ({ ref: "r" }) });
  const plain = effect({ execute: async () => ({ ref: "plain" }) });
  const [graph, other] = [graphOf(send), graphOf(plain)];
  await using cs = await open([graph, other], {
    ownWorkflows: {
      path: inSupport("own-workflows.ts"),
      types: { [send.workflowKey]: "announced" },
      activities: { announce: async (what: string) => void announcements.push(what) },
    },
  });
  expect(cs.catalogue().map(({ backend, service }) => `${backend} ${service.workflowType}`)).toEqual([
    "temporal announced",
    `temporal ${plain.workflowKey}`,
  ]);
  const threads = [await cs.start(graph, { n: 1 }), await cs.start(other, { n: 1 })];
  const working = cs.work();
  for (const { threadId } of threads) {
    const { output } = await cs.result<{ outcome: TestOutcome }>(threadId);
    expect(output?.outcome).toMatchObject({ status: "succeeded" });
  }
  const [intent] = await cs.intents(threads[0]?.threadId ?? "");
  await client.workflow.getHandle(intent?.id ?? "").result();
  expect(announcements).toEqual(["begins", "ends as succeeded"]);
  await cs.close();
  await working;
});

it.each([
  [{ path: "", types: {} }],
  [{ path: "w.js", types: { "a@1": "carryOut" } }],
  [{ path: "w.js", types: { "a@1": "not a name" } }],
])("refuses workflows that cannot own a commitment: %j", (ownWorkflows) => {
  expect(() => temporal({ ownWorkflows })).toThrow(expect.objectContaining({ code: "OPTION_INVALID" }));
});

/** XOR is no protection, but nobody can read it by accident. */
const codec: PayloadCodec = {
  encode: async (payloads) => payloads.map((payload) => ({ ...payload, data: flipped(payload) })),
  decode: async (payloads) => payloads.map((payload) => ({ ...payload, data: flipped(payload) })),
};

function flipped({ data }: Payload): Uint8Array {
  return (data ?? new Uint8Array()).map((byte) => byte ^ 0xff);
}

it("passes what goes through Temporal through the application's codec", async () => {
  const graph = graphOf(effect({ execute: async () => ({ ref: "r" }) }));
  const cs = await open([graph], { dataConverter: { payloadCodecs: [codec] } });
  const { threadId } = await cs.start(graph, { n: 1 });
  const working = cs.work();
  await cs.result(threadId);
  const [intent] = await cs.intents(threadId);
  const encoded = new Client({ connection, dataConverter: { payloadCodecs: [codec] } });
  expect(await encoded.workflow.getHandle(intent?.id ?? "").result()).toMatchObject({ status: "succeeded" });
  const { events } = await client.workflow.getHandle(intent?.id ?? "").fetchHistory();
  const data = [...JSON.stringify(events).matchAll(/"data":"([^"]*)"/g)].map(([, text]) =>
    Buffer.from(text ?? "", "base64"),
  );
  expect(data.length).toBeGreaterThan(0);
  expect(Buffer.concat(data).toString("utf8")).not.toContain(intent?.digest);
  await cs.close();
  await working;
});
