import type pg from "pg";

/**
 * Makes the database refuse some rows of a table, as a full disk or a lost connection would refuse
 * them all, until `end()`.
 * @param when a condition on `new`, the row.
 */
export async function refuseInserts(
  pool: pg.Pool,
  { table, when }: { readonly table: string; readonly when: string },
): Promise<{ end(): Promise<void> }> {
  await pool.query(`
    create or replace function countersign.refuse_for_test() returns trigger language plpgsql as $$
    begin raise exception 'the test refuses this row'; end $$;
    create trigger refuse_for_test before insert on countersign.${table}
      for each row when (${when}) execute function countersign.refuse_for_test()`);
  return {
    async end() {
      await pool.query(`drop trigger refuse_for_test on countersign.${table}`);
    },
  };
}
