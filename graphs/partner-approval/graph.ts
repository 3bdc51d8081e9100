import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { commit, compensate, defineGraph, type Graph, requestDecision } from "countersign";
import type { PartnerCommitments } from "./commitments.ts";
import type { Terms } from "./terms.ts";

export type PartnerType = "referral" | "distribution" | "technology" | "strategic" | "government";

/** Who approves a partner, by its type: each entry is a person of their own. */
const APPROVERS: Record<PartnerType, readonly (readonly string[])[]> = {
  referral: [["manager"]],
  distribution: [["director"]],
  technology: [["vp"]],
  strategic: [["executive"]],
  government: [["executive"], ["legal"]],
};

/** Where a partner stands. `rejected` and the open end of a request take the way back. */
export type PartnerStage = "identified" | "approved" | "signed" | "active" | "withdrawn";

const PartnerState = Annotation.Root({
  partnerId: Annotation<string>,
  name: Annotation<string>,
  email: Annotation<string>,
  type: Annotation<PartnerType>,
  annualVolume: Annotation<number>,
  fitScore: Annotation<number>,
  terms: Annotation<Terms>,
  envelopeId: Annotation<string>,
  activationId: Annotation<string>,
  stage: Annotation<PartnerStage>,
  endedBy: Annotation<string>,
});
type State = typeof PartnerState.State;
type Update = typeof PartnerState.Update;

/** What starts a partner approval. */
export interface PartnerInput {
  readonly partnerId: string;
  readonly name: string;
  readonly email: string;
  readonly type: PartnerType;
  readonly annualVolume: number;
}

/**
 * Partner approval (1–14 days): fit score → the partner is approved by whoever its type asks for →
 * term sheet drafted → legal and an executive sign it off, editing it if need be → out for signature
 * → activation. Rejected at any stage: the term sheet is retracted and the partner is told.
 */
export function partnerApproval(commitments: PartnerCommitments): Graph<PartnerInput, State> {
  const { sendTermSheet, activatePartner, notifyPartner } = commitments;

  const identify = (state: State): Update => ({ stage: "identified", fitScore: fitScoreOf(state) });

  const approvePartner = async ({ partnerId, fitScore, type }: State): Promise<Update> => {
    const decision = await requestDecision({
      name: "partner.approve",
      payload: { partnerId, fitScore, type },
      summary: `Take ${partnerId} on as a ${type} partner (fit ${fitScore})`,
      approvers: { roles: APPROVERS[type] },
    });
    return decision.status === "approved" ? { stage: "approved" } : { endedBy: `partner ${decision.status}` };
  };

  const draftTerms = (state: State): Update => ({ terms: draftOf(state) });

  const sendTerms = async ({ partnerId, terms, fitScore, type }: State): Promise<Update> => {
    const evidence = {
      sources: ["crm", "fit score"],
      assumptions: [`annual volume as declared for a ${type} partner`],
      alternatives: ["a shorter term", "no exclusivity"],
      fitScore,
      rollback: "the envelope is voided until it is signed",
    };
    const outcome = await commit(sendTermSheet, { partnerId, terms }, { evidence });
    if (outcome.status !== "succeeded") return { endedBy: `terms ${outcome.status}` };
    // The terms as they were signed off, edited maybe.
    return { stage: "signed", envelopeId: outcome.output.envelopeId, terms: outcome.input.terms };
  };

  const activate = async ({ partnerId }: State): Promise<Update> => {
    const outcome = await commit(activatePartner, { partnerId });
    if (outcome.status !== "succeeded") return { endedBy: `activation ${outcome.status}` };
    return { activationId: outcome.output.activationId };
  };

  const welcome = async ({ partnerId, email }: State): Promise<Update> => {
    await commit(notifyPartner, { partnerId, to: email, kind: "welcome" });
    return { stage: "active" };
  };

  // The retraction has begun with the rejection itself (onReject); here the graph waits for it, so
  // that the partner is told when it is done.
  const withdraw = async ({ partnerId, email, endedBy }: State): Promise<Update> => {
    await compensate({ reason: endedBy });
    await commit(notifyPartner, { partnerId, to: email, kind: "withdrawal" });
    return { stage: "withdrawn" };
  };

  const onward =
    (next: string) =>
    ({ endedBy }: State): string =>
      endedBy === undefined ? next : "withdraw";

  return defineGraph({
    name: "partner-approval",
    version: 1,
    durability: "durable",
    actorType: "recommender_agent",
    commitments: Object.values(commitments),
    onReject: "compensate",
    graph: new StateGraph(PartnerState)
      .addNode("identify", identify)
      .addNode("approve_partner", approvePartner)
      .addNode("draft_terms", draftTerms)
      .addNode("send_terms", sendTerms)
      .addNode("activate", activate)
      .addNode("welcome", welcome)
      .addNode("withdraw", withdraw)
      .addEdge(START, "identify")
      .addEdge("identify", "approve_partner")
      .addConditionalEdges("approve_partner", onward("draft_terms"), ["draft_terms", "withdraw"])
      .addEdge("draft_terms", "send_terms")
      .addConditionalEdges("send_terms", onward("activate"), ["activate", "withdraw"])
      .addConditionalEdges("activate", onward("welcome"), ["welcome", "withdraw"])
      .addEdge("welcome", END)
      .addEdge("withdraw", END),
  }) as Graph<PartnerInput, State>;
}

/** 0–100: how well a partner fits, from what it declared. */
function fitScoreOf({ annualVolume, type }: State): number {
  const volume = Math.min(60, Math.round(annualVolume / 50_000));
  const reach: Record<PartnerType, number> = {
    referral: 10,
    distribution: 25,
    technology: 30,
    strategic: 40,
    government: 35,
  };
  return volume + reach[type];
}

function draftOf({ fitScore, type }: State): Terms {
  return { commissionPercent: fitScore > 70 ? 25 : 20, termMonths: 24, exclusive: type === "strategic" };
}
