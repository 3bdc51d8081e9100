import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const PROXY = fileURLToPath(new URL("delay-proxy.ts", import.meta.url));

/**
 * Runs `work` with a URL of the same database, seen through a proxy that holds everything back for this
 * long in each direction. The proxy is a process of its own, so that its work is not counted as ours.
 */
export async function withDelay<Result>(
  url: string,
  delayMs: number,
  work: (url: string) => Promise<Result>,
): Promise<Result> {
  const target = new URL(url);
  const proxy = fork(PROXY, [target.hostname, target.port || "5432", String(delayMs)]);
  try {
    const [port] = (await once(proxy, "message")) as [number];
    target.hostname = "127.0.0.1";
    target.port = String(port);
    return await work(target.toString());
  } finally {
    proxy.kill();
  }
}
