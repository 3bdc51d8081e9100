import { countersign } from "../../src/index.ts";

/** What nobody should do: run graphs inside a workflow. */
export async function thinking(): Promise<void> {
  await countersign({
    database: "postgres://nowhere",
    graphs: [],
    backend: { name: "none", open: () => undefined as never },
  });
}
