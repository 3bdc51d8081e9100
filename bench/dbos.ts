import { DBOS } from "@dbos-inc/dbos-sdk";

/** DBOS in this process, on a database of its own; silent, and without its telemetry. */
export async function launchDbos(url: string): Promise<{ run(): Promise<string>; stop(): Promise<void> }> {
  const silent = () => {};
  const logger = { info: silent, debug: silent, warn: silent, error: silent } as never;
  DBOS.setConfig({ name: "bench", systemDatabaseUrl: url, enableOTLP: false, tracingEnabled: false, logger });
  const workflow = DBOS.registerWorkflow(() => DBOS.runStep(async () => "done", { name: "effect" }), {
    name: "one-step",
  });
  await DBOS.launch();
  return { run: () => workflow(), stop: () => DBOS.shutdown() };
}
