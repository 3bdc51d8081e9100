/** Holds whoever awaits `opened` until `open()` is called; `reached` tells the test that somebody stands there. */
export interface Gate {
  readonly opened: Promise<void>;
  /** For code that is to be held: says that it is there, and waits. */
  pass(): Promise<void>;
  /** For the test: resolves when this many have come. */
  reached(count?: number): Promise<void>;
  open(): void;
}

export function gate(): Gate {
  let open: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  let arrived = 0;
  const watchers: { readonly count: number; readonly resolve: () => void }[] = [];
  return {
    opened,
    open,
    pass() {
      arrived++;
      for (const watcher of watchers) if (watcher.count <= arrived) watcher.resolve();
      return opened;
    },
    reached(count = 1) {
      return new Promise((resolve) => {
        if (arrived >= count) resolve();
        else watchers.push({ count, resolve });
      });
    },
  };
}
