import type { Countersign, ExecutionIntent, Principal } from "countersign";
import type { Terms } from "countersign/graphs";

const MIA: Principal = { id: "mia", roles: ["manager"] };
const LENA: Principal = { id: "lena", roles: ["legal"] };
const EVA: Principal = { id: "eva", roles: ["executive"] };

/** Whether the partner of this life ends up active, or is turned down at the last step. */
export type Life = "accepted" | "rejected";

/**
 * What the people of the demo do with a request that waits for them. Each looks at the request as it
 * is now, so that it does not matter how often, or in which process, they are asked.
 * @returns what was done, in words.
 */
export async function decideOn(cs: Countersign, intent: ExecutionIntent, life: Life): Promise<string> {
  const { id, digest, commitment } = intent;
  switch (commitment) {
    case "term-sheet.send":
      if (digest === intent.proposedDigest) {
        const { terms } = intent.payload as { readonly terms: Terms };
        await cs.edit(id, { terms: { ...terms, commissionPercent: 18 } }, { by: LENA, digest, reason: "cap at 18 %" });
        return "legal edits the terms";
      }
      await cs.approve(id, { by: EVA, digest });
      return "the executive approves";
    case "partner.activate":
      if (life === "accepted") break;
      await cs.reject(id, { by: MIA, digest, reason: "a conflict of interest came up", reasonCode: "conflict" });
      return "the manager rejects the activation";
  }
  await cs.approve(id, { by: MIA, digest });
  return `the manager approves ${commitment}`;
}
