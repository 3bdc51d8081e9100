export {
  type BackendCase,
  type BackendUnderTest,
  backendConformance,
  type ConformanceChild,
  conformanceProcess,
} from "./backend-conformance.ts";
export { moveClock } from "./clock.ts";
