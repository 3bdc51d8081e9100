import { expect, it } from "vitest";
import { connectProviders } from "../../examples/partner-approval/providers.ts";
import { receiveWebhooks } from "../../examples/partner-approval/webhook.ts";
import { partnerApproval, partnerCommitments } from "../../graphs/index.ts";
import { postgres } from "../../src/backends/postgres/index.ts";
import { countersign } from "../../src/index.ts";
import { testDatabase } from "../support/database.ts";

const { pool } = await testDatabase();

it("lets the provider send a signature again that a closing process could not record", async () => {
  const nowhere = { esignUrl: "http://127.0.0.1:9", crmUrl: "http://127.0.0.1:9", mailPort: 9 };
  const commitments = partnerCommitments(connectProviders({ ...nowhere, mailControlUrl: nowhere.crmUrl }));
  const cs = await countersign({ database: pool, graphs: [partnerApproval(commitments)], backend: postgres() });
  const webhooks = await receiveWebhooks(cs, commitments.sendTermSheet);
  const announce = async (): Promise<number> => {
    const body = JSON.stringify({ type: "envelope.signed", envelopeId: "env-1", signedBy: "Nora" });
    const headers = { "content-type": "application/json" };
    return (await fetch(webhooks.url, { method: "POST", headers, body })).status;
  };

  expect(await announce()).toBe(404);
  await cs.close();
  expect(await announce()).toBe(503);
  webhooks.close();
});
