// `ferry move` against `virsh blockcopy --wait --pivot` of a real libvirtd, against libvirt's own job, and against the limit
// that the storage sets: `cp --sparse=always` and fsync of the same files beside the same guest, which writes as fast as it
// can all the time. Rounds are interleaved: what disturbs one mover disturbs the next one too. Source files are read from
// their storage, not from memory.
//
// usage: script/bench [--sizes 0.5,1,2,4] [--chain 1] [--rounds 5] [--minutes 14] [--format qcow2|raw]
//          [--pivots 1,2,4] [--resume 1] [--readme]
//   --sizes    GiB of data, a disk of its own for each     --chain   GiB in a chain of three images; 0: none
//   --pivots   numbers of disks; 0: none                   --resume  GiB of the move whose QEMU dies; 0: none
//   --rounds   at most; --minutes: nothing is begun that would not be over by then, once there is a whole round
//   --readme   writes the table into README.md, between its marks
//
// It needs some 2 × (all sizes) of space below /tmp, or FERRY_LAB_PARENT; all of it is removed at the end.

import { chmod } from 'node:fs/promises';
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';

import { present } from '../src/std/assert.js';
import { withLab, type Lab } from '../test/lib/lab.js';
import { must } from '../test/lib/process.js';
import { Libvirtd } from './lib/libvirtd.js';
import type { Results, Round } from './lib/move-table.js';
import { moveTable } from './lib/move-table.js';
import type { Bench, Measure, Mover } from './lib/movers.js';
import { measure } from './lib/movers.js';
import type { Pauses } from './lib/pivots.js';
import { pausesOf } from './lib/pivots.js';
import { putIntoReadme } from './lib/readme.js';
import { writtenBy } from './lib/resumed.js';
import type { Format, Source } from './lib/sources.js';
import { makeSource } from './lib/sources.js';

const { values: options } = parseArgs({
  options: {
    sizes: { type: 'string', default: '0.5,1,2,4' },
    chain: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '5' },
    minutes: { type: 'string', default: '14' },
    format: { type: 'string', default: 'qcow2' },
    pivots: { type: 'string', default: '1,2,4' },
    resume: { type: 'string', default: '1' },
    readme: { type: 'boolean', default: false },
  },
});
const numbers = (text: string): readonly number[] =>
  text
    .split(',')
    .map(Number)
    .filter((one) => one > 0);
const number = (text: string): number => numbers(text)[0] ?? 0;
const [sizes, pivots] = [numbers(options.sizes), numbers(options.pivots)];
const [chainGiB, rounds, resumeGiB] = [
  number(options.chain),
  number(options.rounds),
  number(options.resume),
];
const format: Format = options.format === 'raw' ? 'raw' : 'qcow2';
const endMs = performance.now() + number(options.minutes) * 60_000;

/** Each measure as it is taken: a run that fails late has not been for nothing. */
const tell = (text: string): void => void process.stdout.write(`${text}\n`);

/** What is measured in one boot of the guest, one after the other. */
const boots = (canVerify: boolean): readonly (readonly Mover[])[] => [
  ['cp', 'none'],
  ...(canVerify ? [['full'] as const] : []),
  ['virsh'],
  ['job'],
];

async function makeSources(lab: Lab): Promise<readonly Source[]> {
  const shapes = [
    ...sizes.map((dataGiB) => ({ dataGiB, layers: 1, format }) as const),
    ...(chainGiB > 0 ? [{ dataGiB: chainGiB, layers: 3, format } as const] : []),
  ];
  const sources: Source[] = [];
  for (const shape of shapes) sources.push(await makeSource(lab, shape));
  return sources;
}

async function moves(): Promise<Results['rounds']> {
  if (sizes.length === 0 && chainGiB === 0) return [];
  return await withLab('bench-move', async (lab) => {
    for (const folder of [lab.directory, lab.a, lab.b]) await chmod(folder, 0o777);
    const sources = await makeSources(lab);
    await lab.ferryd();
    await using libvirtd = await Libvirtd.start(lab);
    await chmod(lab.directory, 0o777);
    const canVerify = (await lab.mustFerry('move', '--help')).includes('--verify');
    if (!canVerify) tell('this ferry has no --verify: only the move as it is was measured');
    const bench = { lab, libvirtd, canVerify };
    const all: Round[][] = [];
    const tookMs = new Map<Source, number>();
    for (let round = 0; round < rounds; round++) {
      const one: Round[] = [];
      for (const source of sources) {
        const begunMs = performance.now();
        if (begunMs + (tookMs.get(source) ?? 0) > endMs) continue;
        one.push(await roundOf(bench, source, round));
        tookMs.set(source, performance.now() - begunMs);
      }
      if (one.length > 0) all.push(one);
    }
    return all;
  });
}

/** Who begins changes with each round. */
async function roundOf(bench: Bench, source: Source, round: number): Promise<Round> {
  const all = boots(bench.canVerify);
  const measures = new Map<Mover, Measure>();
  for (let i = 0; i < all.length; i++) {
    const movers = all[(i + round) % all.length] ?? [];
    const taken = await measure(bench, source, movers);
    for (const [k, mover] of movers.entries()) {
      const one = present(taken[k], 'one each');
      measures.set(mover, one);
      const own = one.ownSeconds === null ? '' : ` (own clock ${one.ownSeconds.toFixed(2)} s)`;
      tell(
        `round ${round + 1}, ${source.name}, ${mover}: ${one.seconds.toFixed(2)} s${own}, writes a second ${one.writesBefore.toFixed(0)} before, ${one.writes.toFixed(0)} meanwhile, worst gap ${one.gapMs.toFixed(0)} ms, allocated ${one.allocated.toFixed(3)}`,
      );
    }
  }
  return { source, measures };
}

async function allPauses(): Promise<ReadonlyMap<number, Pauses>> {
  const all = new Map<number, Pauses>();
  for (const disks of pivots) {
    const pauses = await pausesOf(disks, rounds);
    tell(
      `pivot of ${disks}: ferryd ${pauses.ours.join(' ')} ms, bare ${pauses.bare.map((ms) => ms.toFixed(1)).join(' ')} ms`,
    );
    all.set(disks, pauses);
  }
  return all;
}

async function afterDeath(): Promise<Results['resumed']> {
  const dataMiB = resumeGiB * 1024;
  if (dataMiB === 0) return null;
  const one = { dataMiB, sizeMiB: 2 * dataMiB, format };
  const fresh = await writtenBy('fresh move', one);
  const resumed = await writtenBy('move at 90 %', one);
  tell(
    `after a death at 90 %: ${resumed.withCommitBytes} bytes, ${resumed.bytes} until the switch; fresh: ${fresh.bytes}`,
  );
  return { bytes: resumed.withCommitBytes ?? resumed.bytes, freshBytes: fresh.bytes };
}

const before = loadavg()[0] ?? 0;
const results: Results = {
  resumed: await afterDeath(),
  pauses: await allPauses(),
  rounds: await moves(),
};
const command = ['script/bench', ...process.argv.slice(2)].join(' ');
const qemu = (await must('qemu-system-x86_64', ['--version'])).match(/version (\S+)/)?.[1];
const loads = `load ${before.toFixed(1)} before and ${(loadavg()[0] ?? 0).toFixed(1)} after`;
const counts = results.rounds.map((round) => round.length);
const text = `\`${command}\`: ${new Date().toISOString().slice(0, 10)}, QEMU ${qemu}, TCG, ${cpus().length} cores, ${counts.length} rounds (${counts.join(', ')} sources), ${loads}.

${moveTable(results)}`;
if (options.readme) await putIntoReadme(text);
else tell(`\n${text}`);
