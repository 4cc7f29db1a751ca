// The backing chains of a domain's disks, drawn for a person at 3 a.m.: which image is the live one, and what are the others.

import { olderText } from '../domain/source-fate.js';
import type { DiskView, DomainSummary, ImageView } from '../host/ferry-host.js';
import type { Branch, Paint } from './text.js';
import {
  aligned,
  drawTree,
  humanBytes,
  localTime,
  percentOf,
  plain,
  shownPercent,
} from './text.js';

/** One line of the drawing: an image in columns, or a heading of one text. */
type Line = readonly [string] | readonly [string, string, string, string, string];

export function chainText(
  domain: DomainSummary,
  disks: readonly DiskView[],
  paint: Paint = plain,
): string {
  const heading = `Domain ${domain.name}: ${domain.state} (${domain.reason})`;
  const owed = domain.owed === null ? [] : [paint('bad', `  ${domain.owed}`)];
  const drawn = disks.map((disk) => diskText(disk, domain, paint));
  return [[paint('strong', heading), ...owed].join('\n'), ...drawn].join('\n\n');
}

function diskText(disk: DiskView, domain: DomainSummary, paint: Paint): string {
  const kind = `${disk.target} (${disk.device}${disk.readonly ? ', read-only' : ''})`;
  const children = [
    ...nested(
      disk.chain.map((image, i) => imageLine(image, i === 0 ? liveNote(disk, domain) : '')),
    ),
    ...mirrorBranch(disk),
    ...formerBranch(disk),
  ];
  if (children.length === 0) return `${kind}\n└── empty`;
  const drawn = drawTree(children);
  const images = drawn.filter((line) => line.value.length > 1);
  const columns = aligned(images.map(({ lead, value }) => [lead + value[0], ...value.slice(1)]));
  const text = drawn.map((line) => {
    const column = images.indexOf(line);
    return column < 0 ? line.lead + line.value[0] : (columns[column] ?? '');
  });
  return [kind, ...text.map((line) => emphasised(line, paint))].join('\n');
}

function liveNote(disk: DiskView, domain: DomainSummary): string {
  if (domain.id === null) return '◀── the next start uses this one';
  return disk.readonly ? '◀── the guest reads this one' : '◀── the guest reads and writes this one';
}

/** Each image is drawn below the one that it backs. */
function nested(lines: readonly Line[]): readonly Branch<Line>[] {
  return lines.reduceRight<readonly Branch<Line>[]>((children, value) => [{ value, children }], []);
}

function imageLine(image: ImageView, note: string): Line {
  const role = image.role === 'live' ? 'LIVE ▶' : image.role;
  const used = image.actualSizeBytes === null ? '' : `, ${humanBytes(image.actualSizeBytes)} used`;
  const size = image.virtualSizeBytes === null ? 'size ?' : humanBytes(image.virtualSizeBytes);
  const problem = image.problem === null ? '' : `cannot be read: ${image.problem}`;
  const notes = [note, problem].filter((text) => text !== '').join('; ');
  return [role, image.path, image.format, size + used, notes];
}

function mirrorBranch(disk: DiskView): readonly Branch<Line>[] {
  const { mirror } = disk;
  if (mirror === null) return [];
  const percent = shownPercent(percentOf(mirror.copiedBytes, mirror.totalBytes), false);
  const amount = `${humanBytes(mirror.copiedBytes)} of ${humanBytes(mirror.totalBytes)}`;
  const states: Readonly<Record<typeof mirror.state, string>> = {
    copying: `copying ${percent} % (${amount}), not ready`,
    ready: `READY, kept in step${mirror.wayBack === null ? '; nothing is switched yet' : ''}`,
    pivoting: 'being switched to now',
    aborting: 'being dropped now',
  };
  const state =
    mirror.problem === null ? states[mirror.state] : stalledText(mirror.problem, amount);
  const made =
    mirror.wayBack === null
      ? `mirror: ${state}; made by ${ownerText(mirror.owner)}`
      : `way back: ${state}; ${wayBackText(mirror.wayBack)}`;
  const heading: Line = [made];
  return [{ value: heading, children: nested(mirror.chain.map((image) => imageLine(image, ''))) }];
}

const stalledText = (problem: string, amount: string): string =>
  `STANDS STILL after ${amount}, the guest runs on: ${problem}`;

type Mirror = NonNullable<DiskView['mirror']>;

const wayBackText = ({ operation, until }: NonNullable<Mirror['wayBack']>): string =>
  `of operation ${operation}, open until ${localTime(Date.parse(until))}: ferry undo ${operation}`;

function ownerText(owner: Mirror['owner']): string {
  if (owner.move !== null) return `move, operation ${owner.move}`;
  return owner.snapshot === null ? 'a block copy' : `snapshot '${owner.snapshot}'`;
}

const formerNotes = {
  stale: 'a copy of that moment, what was written since is not in it',
  unfinished: 'its mirror or move ended without a switch',
  sealed: 'lies below the live image',
} as const;

function formerBranch(disk: DiskView): readonly Branch<Line>[] {
  if (disk.former.length === 0) return [];
  const children = disk.former.map(({ path, role, sinceSeconds, older }) => {
    const age = older === null ? '' : `${olderText(older)}, `;
    const note = `since ${localTime(sinceSeconds * 1000)}: ${age}${formerNotes[role]}`;
    const value: Line = [role.toUpperCase(), path, '', '', note];
    return { value, children: [] };
  });
  return [{ value: ['NOT live any more, do not start a guest from these:'], children }];
}

/** The live image in green, what must not be used in red. */
function emphasised(line: string, paint: Paint): string {
  if (line.includes('LIVE ▶')) return paint('good', line);
  return /STALE|UNFINISHED|NOT live|STANDS STILL|cannot be read/.test(line)
    ? paint('bad', line)
    : line;
}
