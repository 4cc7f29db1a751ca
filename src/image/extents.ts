// Where a file has data. Node has no SEEK_HOLE, so qemu-img is asked about the file as it lies there, whatever is in it.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import type { Extent } from '../block/copy.js';
import { QemuError, messageOf } from '../std/errors.js';

const lineSchema = z.object({ start: z.int(), length: z.int(), data: z.boolean() });

/** A storage that needs longer for its map is copied without one. */
const patienceMs = 120_000;

/**
 * The parts of a file of that size that are not holes, in order.
 *
 * @throws {QemuError} it cannot be told.
 */
export async function dataExtents(
  qemuImg: string,
  path: string,
  sizeBytes: number,
): Promise<readonly Extent[]> {
  const image = `json:${JSON.stringify({ driver: 'raw', file: { driver: 'file', filename: path } })}`;
  const child = spawn(qemuImg, ['map', '-U', '--output=json', image], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: patienceMs,
  });
  let complaint = '';
  child.stderr.on('data', (text: Buffer) => (complaint += text.toString()));
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  try {
    // Line by line, an extent each: the list of a large image must not hold up everything else here.
    const [found, code] = await Promise.all([extentsIn(child.stdout, sizeBytes), ended]);
    if (code === 0) return found;
  } catch (error) {
    child.kill('SIGKILL');
    throw new QemuError(`qemu-img map ${path}: ${messageOf(error)}`, { cause: error });
  }
  throw new QemuError(`qemu-img map ${path}: ${complaint.trim() || 'it did not end well'}`);
}

async function extentsIn(
  lines: NodeJS.ReadableStream,
  sizeBytes: number,
): Promise<readonly Extent[]> {
  const found: Extent[] = [];
  let end = 0;
  for await (const line of createInterface({ input: lines })) {
    const text = line.replace(/^\[/, '').replace(/[,\]]$/, '');
    if (text === '') continue;
    const { start, length, data } = lineSchema.parse(JSON.parse(text));
    end = start + length;
    if (data) found.push({ start, length });
  }
  // QEMU counts in sectors: whatever of the end it did not see is taken for data.
  return end >= sizeBytes ? found : [...found, { start: end, length: sizeBytes - end }];
}
