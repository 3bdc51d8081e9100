export interface MailHeaders {
  readonly to: string | null;
  /** As sent: an encoded word (RFC 2047) stays encoded. */
  readonly subject: string | null;
  readonly messageId: string | null;
}

/** The three headers of a message that the mail server cares for. */
export function parseMailHeaders(message: string): MailHeaders {
  const [head = ""] = message.split(/\r?\n\r?\n/, 1);
  const unfolded = head.replace(/\r?\n[ \t]+/g, " ");
  const header = (name: string): string | null => {
    const line = unfolded.split(/\r?\n/).find((each) => each.toLowerCase().startsWith(`${name}:`));
    return line?.slice(name.length + 1).trim() ?? null;
  };
  return { to: header("to"), subject: header("subject"), messageId: header("message-id") };
}
