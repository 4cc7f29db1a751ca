// Looks at images for the doctor: are they there, what do their headers say, who has them open. Storage that hangs is
// asked once and then left alone, so that one dead mount does not take the rest of the answer with it.

import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Format } from '../../block/layer.js';
import { backingName, backingPath } from '../../image/headers.js';
import type { ImageStore } from '../../image/store.js';
import { messageOf } from '../../std/errors.js';
import { within } from '../../std/deadline.js';
import { holdersOf } from '../open-files.js';
import type { ImageFacts } from './facts.js';

const STORAGE_TIMEOUT_MS = 5000;

export interface Wanted {
  readonly path: string;
  /** Null: not known, and never guessed (law 7). */
  readonly format: Format | null;
  /** Whether it is asked if the image has clusters of its own. */
  readonly needsEmptiness: boolean;
}

export async function lookAtImages(
  images: ImageStore,
  wanted: readonly Wanted[],
): Promise<ReadonlyMap<string, ImageFacts>> {
  const byPath = new Map<string, Wanted>();
  for (const one of wanted) byPath.set(one.path, merged(byPath.get(one.path), one));
  const found = new Map<string, ImageFacts>();
  const dead = new Map<string, string>();
  const queue = [...byPath.values()];
  const worker = async (): Promise<void> => {
    for (let one = queue.shift(); one !== undefined; one = queue.shift()) {
      const folder = dirname(one.path);
      const known = dead.get(folder);
      const facts = known === undefined ? await lookInTime(images, one) : unreachable(one, known);
      if (facts.hangs) dead.set(folder, facts.problem ?? '');
      found.set(one.path, facts);
    }
  };
  // Fewer than Node has threads for its file system: a dead mount must not hold all of them.
  await Promise.all([worker(), worker(), worker()]);
  const reached = [...found.values()].filter(({ path }) => !dead.has(dirname(path)));
  const holders = await holdersOf(reached.map(({ path }) => path));
  return new Map(
    [...found].map(([path, facts]) => [path, { ...facts, holders: holders.get(path) ?? [] }]),
  );
}

const merged = (before: Wanted | undefined, one: Wanted): Wanted => ({
  ...one,
  format: one.format ?? before?.format ?? null,
  needsEmptiness: one.needsEmptiness || before?.needsEmptiness === true,
});

type Looked = ImageFacts & { readonly hangs: boolean };

async function lookInTime(images: ImageStore, one: Wanted): Promise<Looked> {
  try {
    return await within(lookAt(images, one), STORAGE_TIMEOUT_MS, `storage of ${one.path}`);
  } catch (error) {
    return { ...unreachable(one, messageOf(error)), hangs: true };
  }
}

const unreachable = ({ path }: Wanted, problem: string): Looked => ({
  path,
  sizeBytes: null,
  allocatedBytes: null,
  modifiedSeconds: null,
  info: null,
  names: null,
  isEmpty: null,
  problem,
  holders: [],
  hangs: false,
});

async function lookAt(images: ImageStore, one: Wanted): Promise<Looked> {
  const { path, format } = one;
  let file;
  try {
    file = await stat(path);
  } catch (error) {
    const isMissing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    return unreachable(one, isMissing ? 'it is not there' : messageOf(error));
  }
  const facts: Looked = {
    ...unreachable(one, ''),
    problem: null,
    sizeBytes: BigInt(file.size),
    // st_blocks counts in units of 512 bytes, whatever the file system.
    allocatedBytes: BigInt(file.blocks) * 512n,
    modifiedSeconds: Math.floor(file.mtimeMs / 1000),
  };
  if (format === null) return { ...facts, names: await nameBelow(path) };
  try {
    const info = await images.info(path, format);
    const isEmpty = one.needsEmptiness && info !== null ? await images.isEmpty(path, format) : null;
    const names = format === 'qcow2' ? await nameBelow(path) : null;
    const special = info === null || info.special.length === 0 ? null : info.special.join(', ');
    return { ...facts, info, isEmpty, names, problem: special };
  } catch (error) {
    return { ...facts, problem: messageOf(error) };
  }
}

async function nameBelow(path: string): Promise<string | null> {
  const name = await backingName(path);
  return name === null ? null : (backingPath(path, name) ?? name);
}
