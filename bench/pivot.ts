// Pause of a pivot, through ferryd and by the bare QMP sequence. One line a case; the ratio is what counts.

import { median } from './lib/numbers.js';
import { pausesOf } from './lib/pivots.js';

const ROUNDS = Number(process.env['ROUNDS'] ?? 8);

for (const disks of [1, 2, 4]) {
  const { ours, bare } = await pausesOf(disks, ROUNDS);
  const [a, b] = [median(ours), median(bare)];
  process.stdout.write(
    `pivot of ${disks} disk(s), ${ROUNDS} rounds, median: ferryd ${a.toFixed(1)} ms, bare QMP ${b.toFixed(1)} ms, ratio ${(a / b).toFixed(2)}\n`,
  );
}
