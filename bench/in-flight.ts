/** Does something this often, with this many at once, as a process does that serves many callers. */
export async function inFlight(
  atOnce: number,
  count: number,
  work: (index: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
}

/** Resolves when it was called this often. */
export class Countdown {
  readonly done: Promise<void>;
  #left: number;
  #resolve: () => void = () => {};

  constructor(count: number) {
    this.#left = count;
    this.done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  count(): void {
    this.#left--;
    if (this.#left === 0) this.#resolve();
  }
}
