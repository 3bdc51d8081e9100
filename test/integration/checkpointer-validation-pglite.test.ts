import { PGlite } from "@electric-sql/pglite";
import { afterAll } from "vitest";
import { CountersignSaver } from "../../checkpointers/index.ts";
import { validateSaver } from "../support/checkpointer-validation.ts";

const database = await PGlite.create();
afterAll(() => database.close());

validateSaver(
  "CountersignSaver on PGlite",
  async () => {
    const saver = new CountersignSaver(database);
    await saver.setup();
    return saver;
  },
  () => database.exec("truncate countersign.checkpoints, countersign.checkpoint_blobs, countersign.checkpoint_writes"),
);
