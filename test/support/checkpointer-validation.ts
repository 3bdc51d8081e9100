import { deltaChannelHistoryTests, validate } from "@langchain/langgraph-checkpoint-validation";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, test } from "vitest";
import type { CountersignSaver } from "../../checkpointers/index.ts";

/** Runs LangChain's own suite for checkpointers, with the part that it leaves to choice. */
export function validateSaver(
  checkpointerName: string,
  createCheckpointer: () => Promise<CountersignSaver>,
  clear: () => Promise<unknown>,
): void {
  // The suite takes vitest's functions from globalThis, where only `--globals` would put them.
  Object.assign(globalThis, { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, test });
  const initializer = {
    checkpointerName,
    createCheckpointer,
    async destroyCheckpointer() {
      await clear();
    },
  };
  validate(initializer);
  deltaChannelHistoryTests(initializer);
}
