// The table of docs/reliability.md: operations × points × who died, from what the runs kept.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { root } from '../lib/process.js';
import { testQemus } from '../lib/qemu.js';
import type { Kept, KeptCase } from './kept.js';
import { say } from './say.js';

const path = join(root, 'docs/reliability.md');
const [begin, end] = ['<!-- torture: begin -->', '<!-- torture: end -->'];

const who = {
  daemon: 'ferryd',
  qemu: 'QEMU',
  both: 'both',
  host: 'the host',
  refuse: 'a command',
  cancel: 'a job',
} as const;

/** Replaces the part between the two marks. False: something did not hold. */
export function writeTable(kept: readonly Kept[], build: string): boolean {
  const cases = kept.flatMap((line) => ('case' in line ? [line.case] : []));
  const atEnd = kept.flatMap((line) => ('atEnd' in line ? [line.atEnd] : []));
  const failed = cases.filter(({ problems }) => problems.length > 0);
  const struck = cases.filter(({ blow }) => blow !== null);
  const lines = [
    `Written by \`npm run torture -- --exhaustive\` on ${new Date().toISOString().slice(0, 10)}, ${qemuVersion()}, build ${build}:`,
    `${struck.length} strikes, ${struck.length - failed.length} without a fault.`,
    '',
    ...rowsOf(cases),
    '',
    ...(failed.length + atEnd.length === 0 ? [] : ['What did not hold:', '']),
    ...failed.flatMap(faultsOf),
    ...atEnd.map(
      ({ disks, deed, problem }) =>
        `- ${who[deed]}, ${disks} disks: ${problem.kind}: ${problem.text}`,
    ),
  ];
  const text = readFileSync(path, 'utf8');
  const [head = '', rest = ''] = text.split(begin);
  const tail = rest.split(end)[1] ?? '';
  writeFileSync(path, `${head}${begin}\n\n${lines.join('\n').trim()}\n\n${end}${tail}`);
  say(lines.join('\n'));
  return failed.length + atEnd.length === 0;
}

const head = [
  'operation',
  'disks',
  'who died',
  'points',
  'strikes',
  'finished',
  'undone',
  'not begun',
  'lost writes',
  'leftovers',
  'hangs',
  'else',
];

function rowsOf(cases: readonly KeptCase[]): readonly string[] {
  const keys = new Set(
    cases.map(({ scenario, disks, deed }) => JSON.stringify([scenario, disks, deed])),
  );
  const rows = [...keys].map((key) => rowOf(cases.filter((one) => keyOf(one) === key)));
  const line = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.toSorted(byText).map(line)];
}

const keyOf = ({ scenario, disks, deed }: KeptCase): string =>
  JSON.stringify([scenario, disks, deed]);
const byText = (a: readonly unknown[], b: readonly unknown[]): number =>
  String(a) < String(b) ? -1 : 1;

function rowOf(cases: readonly KeptCase[]): readonly (string | number)[] {
  const struck = cases.filter(({ blow }) => blow !== null);
  const ended = (outcome: KeptCase['outcome']): number =>
    struck.filter((one) => one.outcome === outcome).length;
  const problems = (kind: string): number =>
    cases.filter((one) => one.problems.some((problem) => problem.kind === kind)).length;
  const [first] = cases;
  return [
    first?.scenario ?? '',
    first?.disks ?? 0,
    who[first?.deed ?? 'daemon'],
    Math.max(...cases.map(({ points }) => points)),
    struck.length,
    ended('committed'),
    ended('rolled-back'),
    ended('nothing'),
    problems('lost'),
    problems('leftover'),
    problems('hang'),
    problems('wrong'),
  ];
}

const faultsOf = ({ scenario, disks, deed, blow, problems }: KeptCase): readonly string[] =>
  problems.map(
    ({ kind, text }) =>
      `- ${scenario}, ${disks} disks, ${who[deed]} ${blow?.moment} ${blow?.point}: ${kind}: ${text.split('\n')[0]}`,
  );

const qemuVersion = (): string =>
  execFileSync(testQemus()[0].system, ['--version'], { encoding: 'utf8' })
    .split('\n')[0]
    ?.replace(/^QEMU emulator version/, 'QEMU') ?? 'QEMU';
