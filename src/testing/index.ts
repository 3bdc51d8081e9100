export { type BackendCase, type BackendUnderTest, backendConformance } from "./backend-conformance.ts";
export { moveClock } from "./clock.ts";
