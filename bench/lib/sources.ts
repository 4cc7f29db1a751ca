// Disks to be moved: random data, which nothing makes smaller, beside the place where the guest writes.

import { randomFillSync } from 'node:crypto';
import { chmod, open, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { present } from '../../src/std/assert.js';
import type { Lab } from '../../test/lib/lab.js';
import { must } from '../../test/lib/process.js';

const MiB = 1 << 20;

/** Where the guest writes: the beginning of the disk, in MiB. */
export const spanMiB = 16;

export type Format = 'raw' | 'qcow2';

export interface Source {
  readonly name: string;
  readonly dataGiB: number;
  readonly format: Format;
  /** Active image first. */
  readonly files: readonly string[];
}

export interface SourceShape {
  readonly dataGiB: number;
  /** How many images lie upon one another, each with its part of the data. */
  readonly layers: number;
  readonly format: Format;
}

/** On storage A of the lab, open to all: libvirtd's QEMU is another user. */
export async function makeSource(
  lab: Lab,
  { dataGiB, layers, format }: SourceShape,
): Promise<Source> {
  const name = `${dataGiB}g${layers === 1 ? '' : `-${layers}layers`}`;
  // A chain has headers, which raw has not.
  const kind = layers === 1 ? format : 'qcow2';
  const files: string[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const file = join(lab.a, `${name}-${layer}.${kind}`);
    await makeLayer(lab, file, kind, { dataMiB: Math.round(dataGiB * 1024), layer, layers });
    const [below] = files;
    if (below !== undefined)
      await lab.qemuImg('rebase', '-u', '-f', 'qcow2', '-b', below, '-F', 'qcow2', file);
    files.unshift(file);
  }
  // The guest finds its clusters there: what it writes does not make the images larger.
  const top = present(files[0], 'there is a layer');
  const io = join(dirname(lab.qemu.img), 'qemu-io');
  await must(io, ['-f', kind, '-c', `write -P 0 0 ${spanMiB}M`, top]);
  for (const file of files) await chmod(file, 0o666);
  return { name, dataGiB, format: kind, files };
}

interface Part {
  readonly dataMiB: number;
  readonly layer: number;
  readonly layers: number;
}

/** Every other MiB of the disk is a hole; the layers take turns with the others. */
async function makeLayer(
  lab: Lab,
  to: string,
  format: Format,
  { dataMiB, layer, layers }: Part,
): Promise<void> {
  const raw = format === 'raw' ? to : `${to}.raw`;
  const file = await open(raw, 'w');
  await file.truncate((spanMiB + 2 * dataMiB) * MiB);
  const piece = Buffer.alloc(MiB);
  for (let n = layer; n < dataMiB; n += layers)
    await file.write(randomFillSync(piece), 0, MiB, (spanMiB + 2 * n) * MiB);
  await file.close();
  if (raw === to) return;
  await must(lab.qemu.img, ['convert', '-f', 'raw', '-O', format, raw, to], { timeoutMs: 600_000 });
  await rm(raw);
}

/** What files take of their storage. */
export async function allocatedBytes(files: readonly string[]): Promise<number> {
  const all = await Promise.all(files.map((file) => stat(file)));
  return all.reduce((sum, { blocks }) => sum + blocks * 512, 0);
}

/** Nothing of them waits to be written, and they have to be read from their storage. */
export async function makeCold(files: readonly string[]): Promise<void> {
  await must('sync', ['--', ...files], { timeoutMs: 600_000 });
  for (const file of files)
    await must('dd', [`if=${file}`, 'of=/dev/null', 'iflag=nocache', 'count=0', 'status=none']);
}
