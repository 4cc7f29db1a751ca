// What `ferry gc` lists: first what goes with --yes, then what goes when it is named, then what stays and why.

import { olderText } from '../domain/source-fate.js';
import type { GcFate, GcItem, GcKind, GcRemoved, GcReport } from '../host/gc/types.js';
import type { Paint } from './text.js';
import { duration, humanBytes, localTime, plain } from './text.js';

const headings: readonly (readonly [GcFate, string])[] = [
  ['removable', "'ferry gc --yes' removes these"],
  ['by-name', "Kept; 'ferry gc --yes PATH…' removes those that you name"],
  ['kept', 'Kept, for a proof is missing; look yourself before you remove any'],
];

export function gcText(report: GcReport, paint: Paint = plain): string {
  const nowSeconds = Date.parse(report.time) / 1000;
  const blocks = headings.flatMap(([fate, heading]) => {
    const items = report.items.filter((item) => item.fate === fate);
    if (items.length === 0) return [];
    const lines = items.flatMap((item) => itemLines(item, nowSeconds, paint));
    return [[paint('strong', `${heading} (${sizeOf(items)} in all):`), ...lines].join('\n')];
  });
  if (blocks.length === 0) return 'Nothing that we left is there.';
  const missing =
    report.lookedBy === 'ferry'
      ? ['ferryd is not running: this is a list only; removing takes a running ferryd.']
      : [];
  return [...blocks, ...missing].join('\n\n');
}

const sizeOf = (items: readonly GcItem[]): string =>
  humanBytes(items.reduce((sum, item) => sum + item.allocatedBytes, 0n));

const kinds: Readonly<Record<GcKind, (whose: string) => string>> = {
  unfinished: (whose) => `target of a mirror of ${whose} that ended`,
  stale: (whose) => `image of ${whose}, live until a switch`,
  leftover: (whose) => `left by an operation on ${whose} that was undone`,
  part: (whose) => `unfinished copy for ${whose}`,
  log: (whose) => `log of ${whose}`,
  'run-file': (whose) => `file of the QEMU of ${whose}, which is no more`,
  nvram: (whose) => `UEFI variables of ${whose}`,
};

function itemLines(item: GcItem, nowSeconds: number, paint: Paint): readonly string[] {
  const { path, kind, domain, domainName, target, allocatedBytes, sinceSeconds, older } = item;
  const name = domainName ?? domain ?? 'a domain that is not known';
  const whose = target === null ? name : `${name}/${target}`;
  const since =
    sinceSeconds === null
      ? ''
      : `, since ${localTime(sinceSeconds * 1000)} (${duration(nowSeconds - sinceSeconds)} ago)`;
  return [
    `  ${path}  ${humanBytes(allocatedBytes)}`,
    `      ${kinds[kind](whose)}${since}${older === null ? '' : `, ${olderText(older)}`}`,
    ...keptLines(item),
    ...item.proof.map((text) => `      + ${text}`),
    ...item.against.map((text) => paint('warn', `      - ${text}`)),
  ];
}

function keptLines({ keptUntilSeconds: until }: GcItem): readonly string[] {
  if (until === null) return [];
  return [`      kept until ${localTime(until * 1000)}, and then deleted if nothing is against it`];
}

export function removedText({ removed, operations }: GcRemoved): string {
  if (removed.length === 0) return 'Nothing was removed: nothing goes without its name';
  const numbers = operations.map((id) => `operation ${id}`).join(', ');
  return [
    `Removed ${removed.length} ${removed.length === 1 ? 'file' : 'files'}, ${sizeOf(removed)} (${numbers})`,
    ...removed.map(({ path }) => `  ${path}`),
  ].join('\n');
}
