import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/*
 * `delay-proxy.ts <host> <port> <delayMs>`: forwards TCP connections and holds each chunk back, as a
 * network would. Tells its parent the port that it listens on, and ends with it.
 */
const [host = "", port = "", delayMs = ""] = process.argv.slice(2);

/** Timers of one length fire in the order in which they were set, so chunks keep theirs. */
function hold(from: Socket, to: Socket): void {
  from.on("data", (chunk) => setTimeout(() => to.writable && to.write(chunk), Number(delayMs)));
  from.on("close", () => setTimeout(() => to.destroy(), Number(delayMs)));
  from.on("error", () => {});
}

const server = createServer({ noDelay: true }, (client) => {
  const upstream = connect({ host, port: Number(port), noDelay: true });
  hold(client, upstream);
  hold(upstream, client);
});
server.listen(0, "127.0.0.1", () => process.send?.((server.address() as AddressInfo).port));
process.once("disconnect", () => process.exit());
