// What it costs to go on after QEMU's death: with a mirror in step, and at 90 % of a move. One line a case; it should be
// flat over data and sizes.

import { writtenBy } from './lib/resumed.js';

const CASES = (process.env['CASES'] ?? '0.25:1 0.25:4 0.25:16 0.5:1 0.5:4 0.5:16 1:1 1:4 1:16')
  .split(' ')
  .map((one) => one.split(':').map((gib) => Number(gib) * 1024));
const format = process.env['FORMAT'] === 'qcow2' ? 'qcow2' : 'raw';

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1).padStart(6);

for (const kind of ['mirror READY', 'move at 90 %'] as const)
  for (const [dataMiB = 0, sizeMiB = 0] of CASES) {
    const start = performance.now();
    const { left, bytes, withCommitBytes } = await writtenBy(kind, { dataMiB, sizeMiB, format });
    const ratio = (bytes / (left.base + left.live)).toFixed(3);
    const more = withCommitBytes === null ? '' : `; with the commit ${mib(withCommitBytes)} MiB`;
    say(
      `${kind}, ${dataMiB / 1024} GiB in ${sizeMiB / 1024} GiB (${format}): base ${mib(left.base)}, live layer ${mib(left.live)}, written ${mib(bytes)} MiB, ratio ${ratio}${more}`,
    );
    if (process.env['VERBOSE'] === '1')
      say(`  ${((performance.now() - start) / 1000).toFixed(1)} s`);
  }
