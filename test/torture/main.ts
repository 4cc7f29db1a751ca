// `npm run torture`: operations on writing guests, and whoever takes part in them killed in the middle.
//
//   npm run torture -- --exhaustive [--only SCENARIO] [--disks 1,3] [--deaths daemon,qemu,both,host] [--lanes 2]
//                      [--hours H] [--fresh]
//       every operation at every point with every death; goes on where the last run ended (.cache/torture), and writes
//       the table of docs/reliability.md
//   npm run torture -- --minutes N [--seed S] [--disks N] [--lanes 2]
//       random operations and deaths; a seed gives the same ones again

import { parseArgs } from 'node:util';

import type { Deed } from './blow.js';
import { exhaustive } from './exhaustive.js';
import { randomly } from './randomly.js';

const { values } = parseArgs({
  options: {
    exhaustive: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true, default: [] },
    disks: { type: 'string', default: '' },
    deaths: { type: 'string', default: 'daemon,qemu,both,host' },
    lanes: { type: 'string', default: '2' },
    hours: { type: 'string', default: '' },
    fresh: { type: 'boolean', default: false },
    minutes: { type: 'string', default: '' },
    seed: { type: 'string', default: '' },
  },
});

const deaths = ['daemon', 'qemu', 'both', 'host'] as const satisfies readonly Deed[];
const numbers = (text: string): readonly number[] => text.split(',').map(Number);

async function main(): Promise<boolean> {
  const lanes = Number(values.lanes);
  if (values.exhaustive) {
    return await exhaustive({
      only: values.only,
      disks: values.disks === '' ? [1, 3] : numbers(values.disks),
      deaths: deaths.filter((death) => values.deaths.split(',').includes(death)),
      lanes,
      hours: values.hours === '' ? null : Number(values.hours),
      fresh: values.fresh,
    });
  }
  if (values.minutes === '')
    throw new Error('say --exhaustive, or --minutes N; see the top of test/torture/main.ts');
  return await randomly({
    minutes: Number(values.minutes),
    seed: values.seed === '' ? Date.now() % 1_000_000 : Number(values.seed),
    disks: values.disks === '' ? 2 : Number(values.disks),
    lanes,
  });
}

process.exitCode = (await main()) ? 0 : 1;
