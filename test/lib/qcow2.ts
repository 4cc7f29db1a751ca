// The head of a qcow2 image, as far as who names whom goes (docs/interop/qcow2.txt).

/** A version 3 header whose backing file is `backing`. */
export function qcow2Header(backing: string | null): Buffer {
  const header = Buffer.alloc(512);
  header.writeUInt32BE(0x51_46_49_fb, 0);
  header.writeUInt32BE(3, 4);
  if (backing === null) return header;
  header.writeBigUInt64BE(112n, 8);
  header.writeUInt32BE(Buffer.byteLength(backing), 16);
  return Buffer.concat([header.subarray(0, 112), Buffer.from(backing), Buffer.alloc(512)]);
}
