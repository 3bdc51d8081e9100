import { once } from "node:events";
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { json } from "node:stream/consumers";
import { createTransport } from "nodemailer";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { FaultPlan } from "../../examples/partner-approval/world/faults.ts";
import { readLedgers, readSeenRequests } from "../../examples/partner-approval/world/read-ledgers.ts";
import { spawnWorld } from "../../examples/partner-approval/world/spawn-world.ts";
import { startWorld, type World } from "../../examples/partner-approval/world/start.ts";

const ENVELOPE = { partnerId: "p-1", terms: { discount: 10 } };
const DEAL = { partnerId: "p-1" };
const MAIL = { from: "us@example.test", to: "p-1@example.test", text: "Dear partner" };

let dir: string;
let world: World;
const cleanups: (() => unknown)[] = [];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), "world-"));
  world = await startWorld({ dir });
});

afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
  await world.close();
  rmSync(dir, { recursive: true });
});

describe("a provider that honours keys", () => {
  test("gives the first answer to the second request and does nothing", async () => {
    const first = await post(`${world.esignUrl}/envelopes`, ENVELOPE, "k-1");
    const second = await post(`${world.esignUrl}/envelopes`, ENVELOPE, "k-1");

    expect([first.status, second.status]).toEqual([201, 201]);
    expect(await second.json()).toEqual(await first.json());
    expect(kinds("esign")).toEqual(["envelope.create"]);
    expect(readSeenRequests(dir).esign).toHaveLength(2);
  });

  test("does the work once when the same request comes in many times at once", async () => {
    const requests = Array.from({ length: 20 }, () => post(`${world.crmUrl}/deals`, DEAL, "k-1"));
    const ids = await Promise.all(requests.map(async (request) => (await request).text()));

    expect(new Set(ids).size).toBe(1);
    expect(kinds("crm")).toEqual(["deal.create"]);
  });

  test("refuses a known key with another request", async () => {
    await post(`${world.esignUrl}/envelopes`, ENVELOPE, "k-1");
    const other = await post(`${world.esignUrl}/envelopes`, { ...ENVELOPE, terms: { discount: 90 } }, "k-1");

    expect(other.status).toBe(422);
    expect(kinds("esign")).toEqual(["envelope.create"]);
  });

  test("does the work again for a request without a key", async () => {
    await post(`${world.crmUrl}/partners/p-1/activate`);
    await post(`${world.crmUrl}/partners/p-1/activate`);

    expect(kinds("crm")).toEqual(["partner.activate", "partner.activate"]);
  });
});

test("a provider told to ignore keys does the work twice, and can still be asked what it did", async () => {
  await plan(world.esignUrl, { honourKeys: false });
  const first = (await (await post(`${world.esignUrl}/envelopes`, ENVELOPE, "k-1")).json()) as object;
  await post(`${world.esignUrl}/envelopes`, ENVELOPE, "k-1");

  const found = await (await fetch(`${world.esignUrl}/envelopes?idempotencyKey=k-1`)).json();

  expect(kinds("esign")).toEqual(["envelope.create", "envelope.create"]);
  expect(found).toEqual({ envelope: { ...ENVELOPE, ...first, idempotencyKey: "k-1", status: "sent" } });
});

test("the CRM upserts contacts, makes deals, activates and deactivates partners", async () => {
  const contact = await post(`${world.crmUrl}/contacts/p-1`, { name: "Acme" }, "k-1", { method: "PUT" });
  const deal = await post(`${world.crmUrl}/deals`, DEAL, "k-2");
  const activated = await post(`${world.crmUrl}/partners/p-1/activate`, {}, "k-3");
  const deactivated = await post(`${world.crmUrl}/partners/p-1/deactivate`, { reason: "rejected" }, "k-4");

  expect(await contact.json()).toEqual({ contactId: "contact-p-1" });
  expect(await deal.json()).toEqual({ dealId: expect.any(String) });
  expect(await activated.json()).toEqual({ activationId: expect.any(String) });
  expect(await deactivated.json()).toEqual({ deactivationId: expect.any(String) });
  expect(kinds("crm")).toEqual(["contact.upsert", "deal.create", "partner.activate", "partner.deactivate"]);
});

describe("a planned fault", () => {
  test("drop-after-work leaves one effect and a client without an answer, who finds it by its key", async () => {
    await plan(world.esignUrl, { next: [{ kind: "drop-after-work" }] });

    await expect(post(`${world.esignUrl}/envelopes`, ENVELOPE, "k-1")).rejects.toThrow("fetch failed");

    const found = await (await fetch(`${world.esignUrl}/envelopes?idempotencyKey=k-1`)).json();
    expect(kinds("esign")).toEqual(["envelope.create"]);
    expect(found).toMatchObject({ envelope: { envelopeId: readLedgers(dir).esign[0]?.ref } });
  });

  test("drop-before-work and fail leave no effect, and the next request is served", async () => {
    await plan(world.crmUrl, { next: [{ kind: "drop-before-work" }, { kind: "fail", status: 503 }] });

    await expect(post(`${world.crmUrl}/deals`, DEAL, "k-1")).rejects.toThrow("fetch failed");
    expect((await post(`${world.crmUrl}/deals`, DEAL, "k-1")).status).toBe(503);
    expect(kinds("crm")).toEqual([]);
    expect((await post(`${world.crmUrl}/deals`, DEAL, "k-1")).status).toBe(201);
    expect(readSeenRequests(dir).crm.map(({ fault }) => fault)).toEqual(["drop-before-work", "fail", null]);
  });

  test("hang gives no answer until the client gives up, and does nothing", async () => {
    await plan(world.esignUrl, { next: [{ kind: "hang" }] });
    const patience = new AbortController();
    const hanging = post(`${world.esignUrl}/envelopes`, ENVELOPE, "k-1", { signal: patience.signal });
    await eventually(() => expect(readSeenRequests(dir).esign).toHaveLength(1));

    const meanwhile = await post(`${world.esignUrl}/envelopes`, ENVELOPE, "k-2");
    patience.abort();

    expect(meanwhile.status).toBe(201);
    await expect(hanging).rejects.toThrow("aborted");
    expect(readLedgers(dir).esign.map(({ key }) => key)).toEqual(["k-2"]);
  });
});

describe("a signature", () => {
  test("is posted to the webhook until it gets a 2xx", async () => {
    const { url, received } = await webhookReceiver([500, 404, 204]);
    await post(`${world.esignUrl}/control/webhook`, { url });
    const envelopeId = await createEnvelope();

    await post(`${world.esignUrl}/envelopes/${envelopeId}/sign`, { signedBy: "pat" });

    await eventually(() => expect(kinds("esign")).toContain("webhook.deliver"));
    const event = { type: "envelope.signed", envelopeId, signedBy: "pat", signedAt: expect.any(String) };
    expect(received).toEqual([event, event, event]);
    expect(kinds("esign")).toEqual(["envelope.create", "envelope.sign", "webhook.deliver"]);
  });

  test("that was not delivered is announced after the restart", async () => {
    const envelopeId = await createEnvelope();
    await post(`${world.esignUrl}/envelopes/${envelopeId}/sign`);
    await world.close();
    world = await startWorld({ dir });
    const { url, received } = await webhookReceiver([200]);

    await post(`${world.esignUrl}/control/webhook`, { url });

    await eventually(() => expect(received).toMatchObject([{ envelopeId, signedBy: "p-1" }]));
  });

  test("cannot be put on a voided envelope", async () => {
    const envelopeId = await createEnvelope();
    const url = `${world.esignUrl}/envelopes/${envelopeId}`;
    const voided = await post(`${url}/void`, { reason: "rejected" }, "k-2");

    const answer = await post(`${url}/sign`);

    expect(await voided.json()).toEqual({ voidId: expect.any(String) });
    expect(answer.status).toBe(409);
  });
});

test("an unknown fault and a webhook that is not on loopback are refused", async () => {
  const fault = await post(`${world.crmUrl}/control/faults`, { next: [{ kind: "explode" }] });
  const webhook = await post(`${world.esignUrl}/control/webhook`, { url: "http://example.com/hook" });

  expect([fault.status, webhook.status]).toEqual([400, 400]);
});

describe("the mail server", () => {
  test("takes a mail once per Message-ID", async () => {
    const first = await sendMail("<m-1@us>");
    const second = await sendMail("<m-1@us>");
    await sendMail("<m-2@us>");

    expect(second).toBe(first);
    expect(readLedgers(dir).mail.map(({ key }) => key)).toEqual(["<m-1@us>", "<m-2@us>"]);
    const detail = { to: MAIL.to, subject: "Terms", recipients: [MAIL.to] };
    expect(readLedgers(dir).mail[0]).toMatchObject({ kind: "mail.accept", detail });
  });

  test("takes it twice when told to ignore keys", async () => {
    await plan(world.mailControlUrl, { honourKeys: false });
    await sendMail("<m-1@us>");
    await sendMail("<m-1@us>");

    expect(kinds("mail")).toEqual(["mail.accept", "mail.accept"]);
  });

  test("fails with the planned code, hangs, and drops before and after the work", async () => {
    const drops = [{ kind: "drop-before-work" }, { kind: "drop-after-work" }] as const;
    await plan(world.mailControlUrl, { next: [{ kind: "fail", status: 451 }, { kind: "hang" }, ...drops] });

    await expect(sendMail("<m-1@us>")).rejects.toMatchObject({ responseCode: 451 });
    await expect(sendMail("<m-1@us>", { patienceMs: 300 })).rejects.toMatchObject({ code: "ETIMEDOUT" });
    expect(readSeenRequests(dir).mail.map(({ fault }) => fault)).toEqual(["fail", "hang"]);
    await expect(sendMail("<m-1@us>")).rejects.toThrow();
    expect(kinds("mail")).toEqual([]);
    await expect(sendMail("<m-1@us>")).rejects.toThrow();
    expect(kinds("mail")).toEqual(["mail.accept"]);
  });

  test("refuses a known Message-ID on another mail", async () => {
    await sendMail("<m-1@us>");
    const other = sendMail("<m-1@us>", { subject: "Other terms" });

    await expect(other).rejects.toMatchObject({ responseCode: 554 });
  });
});

test("the ledger still dedupes after a restart, and a torn last line is forgotten", async () => {
  const envelopeId = await createEnvelope("k-1");
  const mailed = await sendMail("<m-1@us>");
  appendFileSync(join(dir, "esign.done.jsonl"), '{"at":"2026-01-');
  expect(kinds("esign")).toEqual(["envelope.create"]);

  await world.close();
  world = await startWorld({ dir });

  expect(await createEnvelope("k-1")).toBe(envelopeId);
  expect(await sendMail("<m-1@us>")).toBe(mailed);
  await createEnvelope("k-2");
  expect(readLedgers(dir).esign.map(({ key }) => key)).toEqual(["k-1", "k-2"]);
  expect(kinds("mail")).toEqual(["mail.accept"]);
});

describe("the world as a process", { timeout: 30_000 }, () => {
  test("remembers what it did when it is killed and started again on its ports", async () => {
    const first = await spawnWorld({ dir });
    const before = await (await post(`${first.crmUrl}/deals`, DEAL, "k-1")).json();
    first.child.kill("SIGKILL");
    await once(first.child, "exit");

    const second = await spawnWorld({ dir, ports: { crm: Number(new URL(first.crmUrl).port) } });
    const after = await (await post(`${first.crmUrl}/deals`, DEAL, "k-1")).json();
    second.child.kill("SIGTERM");

    expect(await once(second.child, "exit")).toEqual([0, null]);
    expect(after).toEqual(before);
    expect(kinds("crm")).toEqual(["deal.create"]);
  });

  test("ends when its stdin closes", async () => {
    const { child } = await spawnWorld({ dir });
    child.stdin?.end();

    expect(await once(child, "exit")).toEqual([0, null]);
  });

  test("says so when it cannot start", async () => {
    const taken = Number(new URL(world.crmUrl).port);

    await expect(spawnWorld({ dir, ports: { crm: taken } })).rejects.toThrow("code 1 before it was ready");
  });
});

function kinds(name: "esign" | "crm" | "mail"): string[] {
  return readLedgers(dir)[name].map(({ kind }) => kind);
}

async function plan(url: string, faults: Partial<FaultPlan>): Promise<void> {
  expect((await post(`${url}/control/faults`, faults)).status).toBe(200);
}

async function createEnvelope(key = "k-1"): Promise<string> {
  const answer = await post(`${world.esignUrl}/envelopes`, ENVELOPE, key);
  return ((await answer.json()) as { envelopeId: string }).envelopeId;
}

function post(url: string, body: object = {}, key?: string, init: RequestInit = {}): Promise<Response> {
  const headers = key === undefined ? {} : { "Idempotency-Key": key };
  return fetch(url, { method: "POST", headers, body: JSON.stringify(body), ...init });
}

/** For what comes about by itself soon. */
function eventually(assertion: () => void): Promise<void> {
  return vi.waitFor(assertion, { timeout: 4_000, interval: 20 });
}

async function sendMail(messageId: string, { subject = "Terms", patienceMs = 10_000 } = {}): Promise<string> {
  const transport = createTransport({ host: "127.0.0.1", port: world.mailPort, socketTimeout: patienceMs });
  return (await transport.sendMail({ ...MAIL, subject, messageId })).response;
}

/** Answers with these statuses in turn, the last one for ever. */
async function webhookReceiver(statuses: number[]): Promise<{ url: string; received: unknown[] }> {
  const received: unknown[] = [];
  const server = createServer(async (incoming, outgoing) => {
    received.push(await json(incoming));
    outgoing.writeHead(statuses[Math.min(received.length, statuses.length) - 1] ?? 500).end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => server.close().closeAllConnections());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`, received };
}
