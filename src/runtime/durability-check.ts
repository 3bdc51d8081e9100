import { Annotation, END, MemorySaver, START, StateGraph } from "@langchain/langgraph";
import { DatabaseError } from "../errors.ts";

/** A checkpointer that takes its time, and knows how many writes have not arrived yet. */
class SlowSaver extends MemorySaver {
  underWay = 0;

  override async putWrites(...args: Parameters<MemorySaver["putWrites"]>): Promise<void> {
    await this.#slowly();
    return super.putWrites(...args);
  }

  override async put(...args: Parameters<MemorySaver["put"]>): ReturnType<MemorySaver["put"]> {
    await this.#slowly();
    return super.put(...args);
  }

  async #slowly(): Promise<void> {
    this.underWay++;
    await new Promise((resolve) => setTimeout(resolve, 5));
    this.underWay--;
  }
}

let checked: Promise<void> | undefined;

/**
 * Proves, once per process, that the installed LangGraph awaits its checkpointer in `sync` before the
 * next step starts. Before 1.4.8 it did not, and a crash then loses what `durable` promises to keep.
 * @throws DatabaseError `DURABILITY_NOT_HONOURED`
 */
export function assertDurabilityHonoured(): Promise<void> {
  checked ??= check();
  return checked;
}

async function check(): Promise<void> {
  const saver = new SlowSaver();
  let underWay = 0;
  const graph = new StateGraph(Annotation.Root({ step: Annotation<number> }))
    .addNode("first", () => ({ step: 1 }))
    .addNode("second", () => {
      underWay = saver.underWay;
      return { step: 2 };
    })
    .addEdge(START, "first")
    .addEdge("first", "second")
    .addEdge("second", END)
    .compile({ checkpointer: saver });
  await graph.invoke({ step: 0 }, { configurable: { thread_id: "check" }, durability: "sync" });
  if (underWay === 0) return;
  throw new DatabaseError(
    "DURABILITY_NOT_HONOURED",
    "The installed LangGraph starts a step before the last one is persisted",
    {
      facts: { underWay },
      remedy: "Install @langchain/langgraph 1.4.8 or newer.",
    },
  );
}
