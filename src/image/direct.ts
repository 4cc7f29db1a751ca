// What going past the page cache needs, and what proves it. O_DIRECT wants memory that begins at a page: Node's buffers
// do not (EINVAL), WebAssembly's memory does, for V8 maps it by itself.

import { readFileSync } from 'node:fs';

/** The part of WebAssembly that is used here; Node has it as a global, its types do not. */
declare const WebAssembly: {
  readonly Memory: new (size: { readonly initial: number; readonly maximum: number }) => {
    readonly buffer: ArrayBuffer;
  };
};

const wasmPageBytes = 64 << 10;

/** Null: there is no room for it in the address space, of which V8 takes much more than is asked for. */
export function pageMemory(length: number): Buffer | null {
  const pages = Math.ceil(length / wasmPageBytes);
  try {
    return Buffer.from(new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer);
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
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
