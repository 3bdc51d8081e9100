import { temporal } from "countersign/temporal";
import type { Backing } from "./backing.ts";
import { isDatabaseAway } from "./database-away.ts";
import { isTemporalAway } from "./temporal-away.ts";

/** Temporal, its task queue polled by the processes that work. */
export const onTemporal: Backing = {
  open({ temporalAddress }) {
    if (temporalAddress === undefined) throw new Error("This run has no Temporal server.");
    return temporal({ address: temporalAddress, concurrency: 40 });
  },
  isAway: (error) => isDatabaseAway(error) || isTemporalAway(error),
};
