/**
 * Many byte strings in one binary parameter, cut out again by offset: an array of them would be sent as
 * hexadecimal text, at twice the size.
 */
export class PackedBytes {
  readonly #parts: Uint8Array[] = [];
  #length = 0;

  /** Where these bytes will be found, as Postgres's `substring(… from at for len)` counts. */
  add(bytes: Uint8Array): { readonly at: number; readonly len: number } {
    const at = this.#length + 1;
    this.#parts.push(bytes);
    this.#length += bytes.byteLength;
    return { at, len: bytes.byteLength };
  }

  pack(): Buffer {
    return Buffer.concat(this.#parts);
  }
}
