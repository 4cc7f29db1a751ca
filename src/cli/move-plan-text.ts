// A plan of a move for a person: short enough to be read before it is agreed to.

import type { MovePlan, Room } from '../host/move-plan.js';
import type { Paint } from './text.js';
import { aligned, duration, humanBytes, plain } from './text.js';

export function movePlanText(plan: MovePlan, paint: Paint = plain): string {
  const { hash, domainName, to, disks, strategy, risks } = plan;
  const targets = disks.map(({ target }) => target).join(', ');
  const facts: readonly (readonly [string, string])[] = [
    ['strategy', `${strategy.name}: ${strategy.why}`],
    [
      'copies',
      `${humanBytes(plan.copyBytes)} in ${count(
        disks.flatMap((d) => d.before.filter((_, i) => d.after[i]?.how !== 'shared')),
        'image',
      )}`,
    ],
    ...disks.flatMap(sharedText),
    ['reads back', verifyText(plan)],
    ['room at the destination', destinationText(plan)],
    ...plan.sources.map((room) => ['room at the source', roomText(room)] as const),
    ['speeds', speedsText(plan)],
    ['time', timeText(plan)],
    ...(plan.pivot === 'auto' ? [] : [['switches', pivotText(plan)] as const]),
    ...(isOffline(plan) ? [] : [['pauses of the guest', pausesText(plan)] as const]),
    ...risks.map((risk) => ['risk', risk] as const),
    ...plan.stages.map(({ stage, wayBack }) => [`way back ${stage}`, wayBack] as const),
  ];
  return [
    paint('strong', `Plan ${hash}: move ${targets} of ${domainName} to ${to}`),
    ...disks.flatMap(diskLines),
    ...aligned(facts).map((line) => `  ${line}`),
    paint('strong', `  do it: ferry apply ${hash}`),
  ].join('\n');
}

/** There is no guest whose writes and pauses could be told of. */
const isOffline = ({ strategy }: MovePlan): boolean => strategy.name === 'offline-copy';

function diskLines({ target, before, after }: MovePlan['disks'][number]): readonly string[] {
  const rows = before.map(({ path, format, actualSizeBytes }, i) => [
    `  ${i === 0 ? target : ' '.repeat(target.length)}  ${i === 0 ? 'live' : 'over'}`,
    `${path} (${format}, ${humanBytes(actualSizeBytes)})`,
    arrowText(after, format, i),
  ]);
  return aligned(rows);
}

const hows = {
  copied: '',
  shared: 'there already',
  converted: 'made anew',
  flattened: 'all in one',
} as const;

function arrowText(after: MovePlan['disks'][number]['after'], was: string, i: number): string {
  const image = after[i];
  if (image === undefined) return '→ flattened into the first';
  const form = image.format === was ? [] : [image.format];
  const how = [hows[image.how], ...form].filter((text) => text !== '').join(', ');
  return `→ ${image.path}${how === '' ? '' : ` (${how})`}`;
}

function sharedText({ after }: MovePlan['disks'][number]): readonly (readonly [string, string])[] {
  const shared = after.filter(({ how }) => how === 'shared').map(({ path }) => path);
  if (shared.length === 0) return [];
  const them = shared.length === 1 ? 'it' : 'them';
  return [
    [
      'takes over',
      `${shared.join(', ')}, if what a guest reads from ${them} is the same; nothing is ever written to ${them}`,
    ],
  ];
}

const verifyTexts: Readonly<Record<MovePlan['verify']['how'], string>> = {
  full: 'all of it, past the page cache',
  sample: 'the first and the last piece of each image, and one in twenty',
  none: 'nothing: the copies are not verified',
};

function verifyText({ strategy, verify: { how, readBackBytes } }: MovePlan): string {
  if (strategy.name === 'full-mirror')
    return 'nothing: QEMU copies, and tells no hash of what it read';
  return how === 'none' ? verifyTexts.none : `${humanBytes(readBackBytes)}: ${verifyTexts[how]}`;
}

const count = ({ length }: { readonly length: number }, what: string): string =>
  `${length} ${what}${length === 1 ? '' : 's'}`;

const roomText = ({ folder, freeBytes, afterBytes }: Room): string =>
  `${folder}: ${humanBytes(freeBytes)} free${afterBytes === freeBytes ? '' : `, ${humanBytes(afterBytes)} after it`}`;

function destinationText({ destination }: MovePlan): string {
  const { folder, freeBytes, afterBytes, spokenForBytes } = destination;
  if (freeBytes === null || afterBytes === null)
    return `${folder}: seen when it is connected to, before anything changes`;
  const others =
    spokenForBytes === 0n ? '' : ` (other moves have still to write ${humanBytes(spokenForBytes)})`;
  return roomText({ folder, freeBytes, afterBytes }) + others;
}

function speedsText(plan: MovePlan): string {
  const { rates } = plan;
  const rate = (bytes: bigint | null): string =>
    bytes === null ? 'unknown' : `${humanBytes(bytes)}/s`;
  const guest = isOffline(plan) ? '' : `; the guest writes ${rate(rates.guestBytesPerSecond)}`;
  const limit =
    rates.limitBytesPerSecond === null ? '' : `, limited to ${rate(rates.limitBytesPerSecond)}`;
  return `source reads ${rate(rates.readBytesPerSecond)}, destination writes ${rate(rates.writeBytesPerSecond)}${limit}${guest}`;
}

function timeText({ seconds }: MovePlan): string {
  if (seconds === null) return 'unknown: a storage does not tell its speed';
  return `between ${duration(Math.ceil(seconds.least))} and ${duration(Math.ceil(seconds.most))}`;
}

/** What a person typed, and the word that overrules it. */
const pivotText = ({ pivot }: MovePlan): string =>
  `once it is in step: ${pivot === 'manual' ? '' : `${pivot}, or `}when 'ferry pivot N' is said`;

function pausesText({ pauses }: MovePlan): string {
  if (pauses.length === 0) return 'not known: no move was made on this host yet';
  const shown = pauses.map(({ what, leastMs, mostMs }) =>
    leastMs === mostMs ? `${what} ${leastMs} ms` : `${what} ${leastMs} to ${mostMs} ms`,
  );
  return `${shown.join(', ')}, as in the moves before on this host`;
}
