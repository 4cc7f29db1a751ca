// Mirrors that ended with their QEMU, as a record keeps them. Pure; part of `applyChange`.

import type { Image } from '../block/layer.js';
import type { DomainRecord, LiveChange, OwedMirror } from './record.js';

export const owedBut = (record: DomainRecord, target: string): readonly OwedMirror[] =>
  record.owed.filter((owed) => owed.record.target !== target);

export function mapOwed(
  record: DomainRecord,
  target: string,
  change: (owed: OwedMirror) => OwedMirror,
): DomainRecord {
  const { owed } = record;
  if (!owed.some((one) => one.record.target === target)) return record;
  return { ...record, owed: owed.map((one) => (one.record.target === target ? change(one) : one)) };
}

/** What was owed before, and every mirror that ends now. */
export function owedAfterStop(
  { live, owed }: DomainRecord,
  sinceSeconds: number,
): readonly OwedMirror[] {
  const ends = (live?.mirrors ?? []).flatMap((record): readonly OwedMirror[] => {
    const disk = live?.definition.disks.find(({ target }) => target === record.target);
    if (disk?.mirror == null || disk.source === null) return [];
    const { mirror, source } = disk;
    const unindexed = (image: Image): Image => ({ ...image, index: null });
    return [
      {
        record,
        source,
        image: unindexed(mirror.image),
        below: mirror.backing.map(unindexed),
        sinceSeconds,
        stamp: null,
      },
    ];
  });
  const ended = new Set(ends.map(({ record }) => record.target));
  return [...owed.filter(({ record }) => !ended.has(record.target)), ...ends];
}

/** What a change of a mirror is to one that is owed. */
export function withOwed(record: DomainRecord, change: LiveChange): DomainRecord {
  switch (change.change) {
    case 'mirror':
      return { ...record, owed: owedBut(record, change.mirror.target) };
    case 'mirror-end':
      return { ...record, owed: owedBut(record, change.target) };
    case 'mirror-owner':
      return mapOwed(record, change.target, (owed) => ({
        ...owed,
        record: { ...owed.record, snapshot: change.snapshot },
      }));
    case 'identify':
    case 'state':
    case 'rebooting':
    case 'next-index':
    case 'mirror-ready':
    case 'mirror-problem':
    case 'mirror-sealed':
      return record;
  }
}
