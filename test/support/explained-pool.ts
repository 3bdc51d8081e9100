import pg from "pg";

/** One node of a plan, as `auto_explain` logs it in JSON. */
interface PlanNode {
  readonly "Node Type": string;
  readonly "Relation Name"?: string;
  readonly "Index Name"?: string;
  readonly "Actual Rows": number;
  readonly "Actual Loops": number;
  readonly "Rows Removed by Filter"?: number;
  readonly Plans?: readonly PlanNode[];
}

/** A statement that was run, the ones inside triggers and functions included, with the plan that it took. */
interface Explained {
  readonly "Query Text": string;
  readonly Plan: PlanNode;
}

/** How a statement went through a table. */
export interface Visit {
  readonly statement: string;
  readonly node: string;
  readonly table: string;
  readonly index: string | undefined;
  /** What it looked at, whether it kept it or not. */
  readonly rows: number;
}

/** An ordinary pool whose server tells the plan of each statement that it runs. The role must be a superuser. */
export function explainedPool(url: string, settings: readonly string[]): { pool: pg.Pool; visits: Visit[] } {
  const visits: Visit[] = [];
  const options = [
    "session_preload_libraries=auto_explain",
    "auto_explain.log_min_duration=0",
    "auto_explain.log_analyze=on",
    "auto_explain.log_nested_statements=on",
    "auto_explain.log_format=json",
    "auto_explain.log_level=notice",
    ...settings,
  ].map((setting) => `-c ${setting}`);
  const pool = new pg.Pool({ connectionString: url, options: options.join(" ") });
  pool.on("error", () => {});
  pool.on("connect", (client) => {
    client.on("notice", ({ message }) => {
      const [, json] = /plan:\s*(\{[\s\S]*)$/.exec(message ?? "") ?? [];
      if (json === undefined) return;
      const explained = JSON.parse(json) as Explained;
      visits.push(...visitsOf(explained.Plan, explained["Query Text"].replaceAll(/\s+/g, " ").trim()));
    });
  });
  return { pool, visits };
}

function visitsOf(node: PlanNode, statement: string): Visit[] {
  const below = (node.Plans ?? []).flatMap((child) => visitsOf(child, statement));
  const table = node["Relation Name"];
  if (table === undefined || !node["Node Type"].includes("Scan")) return below;
  const rows = (node["Actual Rows"] + (node["Rows Removed by Filter"] ?? 0)) * node["Actual Loops"];
  return [{ statement, node: node["Node Type"], table, index: node["Index Name"], rows }, ...below];
}
