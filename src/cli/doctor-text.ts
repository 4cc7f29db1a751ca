// The doctor's report for a person at 3 a.m.: per disk one line that says which image is live, below it why, and what
// else there is; what waits for a person stands with a `!`, with the commands to type.

import { olderText } from '../domain/source-fate.js';
import type {
  ChainImage,
  DiskDiagnosis,
  DoctorFinding,
  DoctorReport,
  DomainDiagnosis,
  OtherImage,
} from '../host/doctor/types.js';
import type { Paint } from './text.js';
import { aligned, duration, humanBytes, localTime, plain } from './text.js';

export function doctorText(report: DoctorReport, paint: Paint = plain): string {
  const by = report.lookedBy === 'ferryd' ? 'asked ferryd' : 'looked without ferryd';
  const blocks = [
    `${localTime(Date.parse(report.time))}, ${by}`,
    ...(report.findings.length === 0 ? [] : [findingLines(report.findings, '', paint).join('\n')]),
    ...report.domains.map((domain) => domainText(domain, paint)),
    endText(report, paint),
  ];
  return blocks.join('\n\n');
}

function endText({ healthy, findings, domains }: DoctorReport, paint: Paint): string {
  if (healthy)
    return paint(
      'good',
      domains.length === 0 ? 'There is no domain; nothing waits.' : 'Nothing waits for a person.',
    );
  const all = [
    ...findings,
    ...domains.flatMap((domain) => [
      ...domain.findings,
      ...domain.disks.flatMap((disk) => disk.findings),
    ]),
  ];
  const count = all.filter(({ needsPerson }) => needsPerson).length;
  const text = count === 1 ? '1 thing waits' : `${count} things wait`;
  return paint('bad', `${text} for a person: see the lines with !`);
}

function domainText({ name, state, disks, findings }: DomainDiagnosis, paint: Paint): string {
  return [
    paint('strong', `${name}: ${state}`),
    ...disks.flatMap((disk) => diskLines(disk, paint)),
    ...findingLines(findings, '  ', paint),
  ].join('\n');
}

function diskLines(disk: DiskDiagnosis, paint: Paint): readonly string[] {
  const { target, live, candidates, why, chain, others, findings } = disk;
  const verdict =
    live === null
      ? paint('bad', `  ${target}  CANNOT BE TOLD; it may be ${candidates.join(' or ')}`)
      : paint('good', `  ${target}  LIVE ▶ ${live}`);
  const rows = [
    ...labelled('why', why),
    ...labelled('over', chain.slice(1).map(chainText)),
    ...others.map((other) => [labels[other.what], otherText(other)]),
  ];
  return [
    verdict,
    ...aligned(rows).map((row) =>
      row.startsWith('NOT') ? paint('bad', indented(row)) : indented(row),
    ),
    ...findingLines(findings, '    ', paint),
  ];
}

const labels = {
  mirror: 'mirror',
  stale: 'NOT live',
  sealed: 'NOT live',
  unfinished: 'NOT live',
} as const;

const indented = (row: string): string => `      ${row}`;

/** The label stands before the first one only. */
const labelled = (label: string, texts: readonly string[]): readonly (readonly string[])[] =>
  texts.map((text, i) => [i === 0 ? label : '', text]);

function chainText({ path, format, allocatedBytes }: ChainImage): string {
  const used = allocatedBytes === null ? '' : `, ${humanBytes(allocatedBytes)} used`;
  return `${path} (${format}${used})`;
}

function otherText({ path, what, sinceSeconds, ageSeconds, older, ...other }: OtherImage): string {
  const since =
    sinceSeconds === null || ageSeconds === null
      ? ''
      : ` since ${localTime(sinceSeconds * 1000)} (${duration(ageSeconds)} ago)`;
  const bytes = other.differsAtMostBytes;
  const differs = bytes === null ? '' : `; at most ${humanBytes(bytes)} differ from the live image`;
  return `${path}: ${what === 'mirror' ? '' : `${what}${since}${older === null ? '' : `, ${olderText(older)}`}; `}${other.text}${differs}`;
}

export function findingLines(
  findings: readonly DoctorFinding[],
  indent: string,
  paint: Paint,
): readonly string[] {
  return findings.flatMap(({ needsPerson, text, commands }) => {
    const rows = aligned(commands.map(({ type, why }) => [type, `# ${why}`]));
    const first = `${indent}${needsPerson ? '!' : '-'} ${text}`;
    return [
      needsPerson ? paint('bad', first) : first,
      ...rows.map((row) => paint('strong', `${indent}    ${row}`)),
    ];
  });
}
