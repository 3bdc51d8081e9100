export { moveClock } from "./clock.ts";
