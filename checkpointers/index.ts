export { CountersignSaver, type CountersignSaverOptions } from "./saver.ts";
