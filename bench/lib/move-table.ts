// The tables of bench/move.ts: each goal of the project beside what was measured, and the measures that it is made of.

import type { Measure, Mover } from './movers.js';
import { lineThrough, median, quantile } from './numbers.js';
import type { Pauses } from './pivots.js';
import type { Source } from './sources.js';

/** Of one round: what each mover needed for one source. */
export interface Round {
  readonly source: Source;
  readonly measures: ReadonlyMap<Mover, Measure>;
}

export interface Results {
  /** In the order in which they were taken: all sources of a round, then the next one. */
  readonly rounds: readonly (readonly Round[])[];
  readonly pauses: ReadonlyMap<number, Pauses>;
  /** Bytes that a move writes after QEMU's death at 90 %, and one that is begun anew. */
  readonly resumed: { readonly bytes: number; readonly freshBytes: number } | null;
}

interface Row {
  readonly what: string;
  readonly goal: string;
  readonly values: readonly number[];
  readonly note?: string;
}

/** In Markdown; rows of what was not measured are left out. */
export function moveTable(results: Results): string {
  const goals = [
    ...slopeRows(results),
    ...sourcesOf(results).flatMap((name) => wholeRows(results, name)),
    ...guestRows(results),
    ...[...results.pauses].map(pauseRow),
    ...resumedRows(results),
  ];
  return [
    '| what | goal | measured: median (quartiles) | |',
    '| --- | --- | --- | --- |',
    ...goals
      .filter(({ values }) => values.length > 0)
      .map(
        ({ what, goal, values, note = '' }) => `| ${what} | ${goal} | ${show(values)} | ${note} |`,
      ),
    ...(results.rounds.length === 0 ? [] : measuresTable(results)),
  ].join('\n');
}

const measuresTable = (results: Results): readonly string[] => [
  '',
  '| data | mover | seconds | guest: share of its write rate | worst gap, ms | destination ÷ source |',
  '| --- | --- | --- | --- | --- | --- |',
  ...sourcesOf(results).flatMap((name) =>
    movers.flatMap((mover) => measuresRow(results, name, mover)),
  ),
];

const movers = ['cp', 'none', 'full', 'virsh', 'job'] as const;

const names: Readonly<Record<Mover, string>> = {
  cp: '`cp --sparse=always` and fsync',
  none: '`ferry move`, no verification',
  full: '`ferry move`, verified',
  virsh: '`virsh blockcopy --wait --pivot`',
  job: "libvirt's job, pivoted at READY",
};

/** The median, and between which values the middle half of them lies; all of them where they are few. */
function show(values: readonly number[], digits = 2): string {
  const [low, middle, high] = [0.25, 0.5, 0.75].map((part) =>
    quantile(values, part).toFixed(digits),
  );
  return values.length === 1 ? `${middle}` : `${middle} (${low} to ${high})`;
}

/** libvirt's job is timed by itself: the program that asks for it is none that anybody uses. */
const timeOf = (mover: Mover, { seconds, ownSeconds }: Measure): number =>
  mover === 'job' ? (ownSeconds ?? seconds) : seconds;

const sourcesOf = ({ rounds }: Results): readonly string[] =>
  (rounds[0] ?? []).map(({ source }) => source.name);

const isPlain = ({ source }: Round): boolean => source.files.length === 1;

/** One value a round that has it. */
function each(
  { rounds }: Results,
  value: (round: readonly Round[]) => number | null | undefined,
): readonly number[] {
  return rounds.flatMap((round) => value(round) ?? []);
}

const of = (round: readonly Round[], name: string, mover: Mover): Measure | undefined =>
  round.find(({ source }) => source.name === name)?.measures.get(mover);

function slopeRows(results: Results): readonly Row[] {
  // A round that ended early has no line of its own.
  const sizes = (results.rounds[0] ?? []).filter(isPlain).length;
  const whole = results.rounds.filter((round) => round.filter(isPlain).length === sizes);
  const lines = (mover: Mover, pick: (mover: Mover, measure: Measure) => number | null) =>
    whole.map((round) =>
      lineThrough(
        round.filter(isPlain).flatMap(({ source, measures }) => {
          const measure = measures.get(mover);
          const y = measure === undefined ? null : pick(mover, measure);
          return y === null ? [] : [[source.dataGiB, y] as const];
        }),
      ),
    );
  const [ours, theirs] = [lines('none', timeOf), lines('cp', timeOf)];
  const journal = lines('none', (_, { ownSeconds }) => ownSeconds);
  const slopes = (all: typeof ours): readonly number[] => all.flatMap((line) => line?.slope ?? []);
  const fixed = (all: typeof ours): readonly number[] => all.flatMap((line) => line?.fixed ?? []);
  const ratios = ours.flatMap((line, i) => {
    const limit = theirs[i];
    return line == null || limit == null ? [] : [line.slope / limit.slope];
  });
  const note = `${show(slopes(ours))} against ${show(slopes(theirs))} s per GiB`;
  return [
    { what: 'slope, verification off ÷ cp and fsync', goal: '≤ 1.25', values: ratios, note },
    {
      what: 'fixed part, s',
      goal: '≤ 0.8',
      values: fixed(ours),
      note: `by the journal, without the start of \`ferry\`: ${show(fixed(journal))} s`,
    },
  ];
}

function wholeRows(results: Results, name: string): readonly Row[] {
  const ratio = (mover: Mover, by: Mover, own: boolean): readonly number[] =>
    each(results, (round) => {
      const [ours, theirs] = [of(round, name, mover), of(round, name, by)];
      if (ours === undefined || theirs === undefined) return null;
      return (own ? (ours.ownSeconds ?? Number.NaN) : ours.seconds) / timeOf(by, theirs);
    });
  return (
    [
      ['none', 'verification off', '≤ 0.8'],
      ['full', 'verified', '≤ 1.2'],
    ] as const
  ).flatMap(([mover, how, goal]) => [
    { what: `move of ${name}, ${how} ÷ virsh`, goal, values: ratio(mover, 'virsh', false) },
    {
      what: `move of ${name}, ${how} ÷ libvirt's job`,
      goal: '≤ 1',
      values: ratio(mover, 'job', true),
      note: `both by their own clocks; with the start of \`ferry\`: ${show(ratio(mover, 'job', false))}`,
    },
  ]);
}

function guestRows(results: Results): readonly Row[] {
  const ours = (['none', 'full'] as const).filter((mover) =>
    results.rounds.some((round) => round.some(({ measures }) => measures.has(mover))),
  );
  const pairs = (mover: Mover, value: (ours: Measure, virsh: Measure) => number) =>
    results.rounds.flat().flatMap(({ measures }) => {
      const [a, b] = [measures.get(mover), measures.get('virsh')];
      return a === undefined || b === undefined ? [] : [value(a, b)];
    });
  return ours.flatMap((mover) => [
    {
      what: `allocated at the destination ÷ source (${names[mover]})`,
      goal: '≤ 1.02',
      values: results.rounds.flat().flatMap(({ measures }) => measures.get(mover)?.allocated ?? []),
    },
    {
      what: `guest's write rate ÷ that under virsh (${names[mover]})`,
      goal: '≥ 1.5',
      values: pairs(mover, (a, b) => a.writes / a.writesBefore / (b.writes / b.writesBefore)),
      note: 'each as a share of the rate before',
    },
    {
      what: `guest's worst write gap ÷ that under virsh (${names[mover]})`,
      goal: '≤ 1',
      values: pairs(mover, (a, b) => a.gapMs / b.gapMs),
    },
  ]);
}

function pauseRow([disks, { ours, bare }]: readonly [number, Pauses]): Row {
  return {
    what: `pause of the pivot of ${disks} disk${disks === 1 ? '' : 's'} ÷ bare QMP`,
    goal: '≤ 1.5',
    values: [median(ours) / median(bare)],
    note: `${show(ours, 1)} against ${show(bare, 1)} ms`,
  };
}

function resumedRows({ resumed }: Results): readonly Row[] {
  if (resumed === null) return [];
  const { bytes, freshBytes } = resumed;
  const mib = (count: number): string => (count / 2 ** 20).toFixed(0);
  return [
    {
      what: 'bytes written after a death at 90 % ÷ a fresh move',
      goal: '≤ 0.25',
      values: [bytes / freshBytes],
      note: `${mib(bytes)} against ${mib(freshBytes)} MiB, with the live layer and its merge`,
    },
  ];
}

function measuresRow(results: Results, name: string, mover: Mover): readonly string[] {
  const all = results.rounds.flatMap((round) => of(round, name, mover) ?? []);
  if (all.length === 0) return [];
  const column = (value: (measure: Measure) => number, digits = 2): string =>
    show(all.map(value), digits);
  const cells = [
    name,
    names[mover],
    column((measure) => timeOf(mover, measure)),
    column(({ writes, writesBefore }) => writes / writesBefore),
    column(({ gapMs }) => gapMs, 0),
    column(({ allocated }) => allocated, 3),
  ];
  return [`| ${cells.join(' | ')} |`];
}
