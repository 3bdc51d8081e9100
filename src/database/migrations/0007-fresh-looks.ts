/**
 * What a statement decides from other tables about a row that it had to wait for must be read after the
 * wait. A statement, and each stable function in it, sees what stood when it began; a volatile function
 * looks anew.
 */
export const freshLooks = (schema: string): string => `
-- Else a thread whose release waited for the end of its compensation stands as compensating for good.
alter function ${schema}.end_status(text) volatile;

-- Whether a thread has a checkpoint, so that its input must not be given again: a driver whose lease had
-- run out may have written one just before the thread was claimed.
create function ${schema}.has_begun(thread text) returns boolean language plpgsql volatile as $$
begin
  return exists (select from ${schema}.checkpoints c where c.thread_id = thread and c.checkpoint_ns = '');
end $$;
`;
