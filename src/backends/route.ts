import type { BackendHost, BackendWorker, DurableBackend } from "../backend.ts";
import type { AnyCommitment } from "../commitment.ts";
import { OptionError } from "../errors.ts";
import type { ExecutionIntent } from "../intent.ts";

/** Which backend owns which commitments: by name, or by a prefix that ends in `.*`; `default` takes the rest. */
export interface Routes {
  readonly default: DurableBackend;
  readonly [pattern: string]: DurableBackend;
}

export interface RouteOptions {
  /** Backends that get nothing new and finish what they own: the old one, after a swap. Defaults to none. */
  readonly drain?: readonly DurableBackend[];
}

/**
 * Several backends side by side, each commitment with exactly one owner. The owner is recorded in the
 * intent's row when it is proposed, and stays: a changed route is for what is proposed from then on.
 * @throws OptionError for a pattern that cannot match, or two backends of one name; `countersign()`
 * throws it for a commitment that two patterns claim.
 */
export function route(routes: Routes, { drain = [] }: RouteOptions = {}): DurableBackend {
  const { default: otherwise, ...patterns } = routes;
  const rules = Object.entries(patterns).map(([pattern, backend]) => ({ pattern, backend, matches: matcher(pattern) }));
  const backends = byName([otherwise, ...rules.map(({ backend }) => backend), ...drain]);
  const ownerOf = (commitment: AnyCommitment): string => {
    const found = rules.filter(({ matches }) => matches(commitment.name));
    const owners = new Set(found.map(({ backend }) => backend.name));
    if (owners.size <= 1) return [...owners][0] ?? otherwise.name;
    throw new OptionError("A commitment has two owners", {
      facts: { commitment: commitment.name, patterns: found.map(({ pattern }) => pattern).join(", ") },
      remedy: "Let exactly one pattern of route() match it.",
    });
  };
  return {
    name: otherwise.name,
    names: [...backends.keys()],
    ownerOf,
    catalogue: (commitment) => backends.get(ownerOf(commitment))?.catalogue?.(commitment) ?? {},
    open: (host) => new RoutedWorker(host, backends),
  };
}

function matcher(pattern: string): (name: string) => boolean {
  if (!/^[a-z0-9]+([.-][a-z0-9]+)*(\.\*)?$/.test(pattern)) {
    throw new OptionError("route() got a pattern that no commitment can match", {
      facts: { pattern },
      remedy: "Name a commitment, as 'payment.send', or all below a prefix, as 'payment.*'.",
    });
  }
  if (!pattern.endsWith(".*")) return (name) => name === pattern;
  return (name) => name.startsWith(pattern.slice(0, -1));
}

function byName(backends: readonly DurableBackend[]): ReadonlyMap<string, DurableBackend> {
  const named = new Map<string, DurableBackend>();
  for (const backend of backends) {
    const known = named.get(backend.name);
    if (known !== undefined && known !== backend) {
      throw new OptionError("route() got two backends of one name", {
        facts: { name: backend.name },
        remedy: "Use one object for both, or give each a name of its own: rows carry it.",
      });
    }
    named.set(backend.name, backend);
  }
  return named;
}

/** Each backend looks for the rows that name it, whatever the routes say now. */
class RoutedWorker implements BackendWorker {
  readonly #workers: ReadonlyMap<string, BackendWorker>;

  constructor(host: BackendHost, backends: ReadonlyMap<string, DurableBackend>) {
    this.#workers = new Map([...backends].map(([name, backend]) => [name, backend.open(host)]));
  }

  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#all.map((worker) => worker.run(signal)));
  }

  async tick(): Promise<number> {
    const done = await Promise.all(this.#all.map((worker) => worker.tick()));
    return done.reduce((sum, each) => sum + each, 0);
  }

  released(intent: ExecutionIntent): void {
    this.#workers.get(intent.backend ?? "")?.released(intent);
  }

  async drain(timeoutMs: number): Promise<void> {
    await Promise.all(this.#all.map((worker) => worker.drain(timeoutMs)));
  }

  get #all(): BackendWorker[] {
    return [...this.#workers.values()];
  }
}
