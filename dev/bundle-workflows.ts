import { writeFileSync } from "node:fs";
import { bundleWorkflows, PREBUILT } from "../src/backends/temporal/workflow-bundle.ts";

/* The last step of the build: the workflow bundle that ships, for the SDK that is installed here. */
writeFileSync(new URL(`../dist/src/backends/temporal/${PREBUILT}`, import.meta.url), await bundleWorkflows());
