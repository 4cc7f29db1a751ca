// Mirrors whose QEMU ended and that a start has to do with, in words.

import type { DomainRecord } from '../../domain/record.js';
import type { DoctorFinding } from './types.js';

export function owedFindings({ name, owed }: DomainRecord): readonly DoctorFinding[] {
  if (owed === null) return [];
  const commands = [...owed.matchAll(/'(ferry [^']+?)'/g)].map((match) => match[1] ?? '');
  return [
    {
      needsPerson: true,
      text: `a start of ${name} is refused: ${owed}`,
      commands: commands.map((type) => ({
        type,
        why: 'drop the mirror; the source has everything',
      })),
    },
  ];
}
