import { CountersignSaver } from "../../checkpointers/index.ts";
import { validateSaver } from "../support/checkpointer-validation.ts";
import { testDatabase } from "../support/database.ts";

const { pool } = await testDatabase();

validateSaver(
  "CountersignSaver on Postgres",
  async () => {
    const saver = new CountersignSaver(pool);
    await saver.setup();
    return saver;
  },
  () => pool.query("truncate countersign.checkpoints, countersign.checkpoint_blobs, countersign.checkpoint_writes"),
);
