// Mirrors that ended with their QEMU and are to be taken up again, in words.

import { showSource } from '../../block/layer.js';
import type { DomainRecord } from '../../domain/record.js';
import type { DoctorFinding } from './types.js';

export function owedFindings({ name, owed, live }: DomainRecord): readonly DoctorFinding[] {
  return owed.map(({ record: { target, snapshot, move }, source, image }) => {
    const what = `the mirror of ${target} on ${showSource(image.source)} ended with its QEMU; ${showSource(source)} has everything`;
    const when =
      live === null
        ? `the next start of ${name} makes it anew before the guest runs`
        : 'it is taken up again as soon as its destination is back';
    const drop =
      snapshot === null
        ? `ferry blockjob ${name} ${target} --abort`
        : `ferry snapshot-delete ${name} ${snapshot} --remove-mirror`;
    const start = [
      { type: `ferry start ${name}`, why: 'run, mirrored again' },
      { type: `ferry start ${name} --mirror-later`, why: 'run now, mirror when it is back' },
    ];
    return {
      needsPerson: false,
      text: `${what}; ${when}`,
      commands: [
        ...(live === null ? start : []),
        // A move's ends with the move.
        ...(move ? [] : [{ type: drop, why: 'give the mirror up; the source has everything' }]),
      ],
    };
  });
}
