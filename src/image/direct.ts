// What a read past the page cache needs, and what proves one. O_DIRECT wants memory that begins at a page, which Node's
// buffers do not (EINVAL), and WebAssembly's memory does: V8 maps it for itself.

import { readFileSync } from 'node:fs';

/** The part of WebAssembly that is used here; Node has it as a global, its types do not. */
declare const WebAssembly: {
  readonly Memory: new (size: { readonly initial: number; readonly maximum: number }) => {
    readonly buffer: ArrayBuffer;
  };
};

const wasmPageBytes = 64 << 10;

/** Never given back while its thread lives. @throws {RangeError} there is no room for it in the address space. */
export function pageMemory(length: number): Buffer {
  const pages = Math.ceil(length / wasmPageBytes);
  return Buffer.from(new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer);
}

/**
 * What this very thread had storages read so far, in bytes (`read_bytes` of proc(5)): a page that was in memory does not
 * count. Null: this kernel does not say.
 */
export function storageReads(): number | null {
  try {
    const [, bytes] =
      /^read_bytes: (\d+)$/m.exec(readFileSync('/proc/thread-self/io', 'utf8')) ?? [];
    return bytes === undefined ? null : Number(bytes);
  } catch {
    return null;
  }
}
