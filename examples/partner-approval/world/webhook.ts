import { setTimeout as delay } from "node:timers/promises";

export interface WebhookEvent {
  readonly type: "envelope.signed";
  readonly envelopeId: string;
  readonly signedBy: string;
  readonly signedAt: string;
}

/** The provider's side of a webhook: an event is posted until somebody takes it with a 2xx. */
export interface Webhook {
  /** Where events go from the next try on, also those that are waiting for one. */
  pointTo(url: string): void;
  /**
   * Resolves to true once delivered, to false when the tries are spent or the webhook was closed. A try
   * while the webhook points nowhere counts as failed.
   */
  deliver(event: WebhookEvent): Promise<boolean>;
  /** Ends the tries under way. */
  close(): void;
}

/** Together about a minute, which is longer than a demo needs to bring its process back. */
const MAX_TRIES = 60;
const FIRST_PAUSE_MS = 50;
const MAX_PAUSE_MS = 1_000;
const TRY_TIMEOUT_MS = 5_000;

export function createWebhook(): Webhook {
  const closing = new AbortController();
  let url: string | undefined;
  return {
    pointTo(to) {
      url = to;
    },
    async deliver(event) {
      for (let tries = 1; tries <= MAX_TRIES && !closing.signal.aborted; tries++) {
        // Whoever closed the webhook has stopped listening; the event is announced again after the restart.
        if (url !== undefined && (await post(url, event, closing.signal))) return !closing.signal.aborted;
        await pause(Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (tries - 1)), closing.signal);
      }
      if (!closing.signal.aborted) console.error(`webhook: gave up on ${event.envelopeId}`);
      return false;
    },
    close: () => closing.abort(),
  };
}

async function post(url: string, event: WebhookEvent, closing: AbortSignal): Promise<boolean> {
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(event),
      signal: AbortSignal.any([closing, AbortSignal.timeout(TRY_TIMEOUT_MS)]),
    });
    await response.body?.cancel();
    return response.ok;
  } catch {
    // Refused, cut or too slow: all the same to a sender that will try again.
    return false;
  }
}

async function pause(ms: number, closing: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal: closing }).catch(() => {});
}
