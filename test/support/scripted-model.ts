import { BaseChatModel } from "@langchain/core/language_models/chat_models";
import { AIMessage, type BaseMessage } from "@langchain/core/messages";
import type { ChatResult } from "@langchain/core/outputs";

/** One turn of the script: what the model says, or the tools that it calls, all in one message. */
export type Turn = string | readonly { readonly id: string; readonly name: string; readonly args: object }[];

/**
 * A chat model that follows a script. The turn is the number of its own messages so far in the
 * conversation, so that a re-run with the same history gets the same answer, as from a cached call.
 */
export class ScriptedModel extends BaseChatModel {
  /** How often it was asked. */
  calls = 0;
  readonly #script: readonly Turn[];

  constructor(script: readonly Turn[]) {
    super({});
    this.#script = script;
  }

  override _llmType(): string {
    return "scripted";
  }

  override bindTools(): this {
    return this;
  }

  override async _generate(messages: BaseMessage[]): Promise<ChatResult> {
    this.calls++;
    const turn = this.#script[messages.filter((message) => AIMessage.isInstance(message)).length] ?? "";
    const message =
      typeof turn === "string"
        ? new AIMessage(turn)
        : new AIMessage({
            content: "",
            tool_calls: turn.map(({ id, name, args }) => ({ id, name, args: { ...args }, type: "tool_call" })),
          });
    return { generations: [{ text: typeof turn === "string" ? turn : "", message }] };
  }
}
