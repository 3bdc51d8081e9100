import { tables } from "./0001-tables.ts";
import { stateMachine } from "./0002-state-machine.ts";
import { consequences } from "./0003-consequences.ts";
import { flatPlans } from "./0004-flat-plans.ts";
import { pruning } from "./0005-pruning.ts";
import { linkedAudit } from "./0006-linked-audit.ts";
import { freshLooks } from "./0007-fresh-looks.ts";
import { compensationRequests } from "./0008-compensation-requests.ts";
import { earlyEvents } from "./0009-early-events.ts";
import { possiblyDone } from "./0010-possibly-done.ts";

/** One step forward. A breaking one is refused by code that does not know it. */
export interface Migration {
  readonly version: number;
  readonly name: string;
  readonly breaking: boolean;
  readonly sql: (schema: string) => string;
}

/** Forward-only: a released migration never changes, a change is a new one. */
export const MIGRATIONS: readonly Migration[] = [
  { version: 1, name: "tables", breaking: true, sql: tables },
  { version: 2, name: "state-machine", breaking: true, sql: stateMachine },
  { version: 3, name: "consequences", breaking: true, sql: consequences },
  { version: 4, name: "flat-plans", breaking: true, sql: flatPlans },
  { version: 5, name: "pruning", breaking: false, sql: pruning },
  { version: 6, name: "linked-audit", breaking: false, sql: linkedAudit },
  { version: 7, name: "fresh-looks", breaking: false, sql: freshLooks },
  { version: 8, name: "compensation-requests", breaking: false, sql: compensationRequests },
  { version: 9, name: "early-events", breaking: false, sql: earlyEvents },
  { version: 10, name: "possibly-done", breaking: false, sql: possiblyDone },
];
