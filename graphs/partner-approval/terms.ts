import { z } from "zod";

/** What is offered to a partner. */
export const Terms = z.object({
  commissionPercent: z.number().min(0).max(40),
  termMonths: z.number().int().min(1).max(60),
  exclusive: z.boolean(),
});
export type Terms = z.infer<typeof Terms>;
