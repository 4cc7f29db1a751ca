// Operations as text: the list, one of them with its steps, and what a move left behind.

import { keptText, olderText } from '../domain/source-fate.js';
import type {
  CommandHint,
  CopyView,
  DiskView,
  OperationView,
  SourceView,
  StepView,
} from '../host/ferry-host.js';
import { limitText, progressFacts } from './progress-text.js';
import type { Paint } from './text.js';
import { aligned, duration, humanBytes, localTime, plain, shownPercent, table } from './text.js';

export function operationListText(operations: readonly OperationView[]): string {
  const rows = operations.map((o) => [
    String(o.id),
    o.kind,
    o.domainName,
    o.status,
    o.progress === null ? '-' : `${shownPercent(o.progress.percent, o.progress.ready)} %`,
    localTime(Date.parse(o.startedAt)),
    waitsFor(o),
  ]);
  return table(['Id', 'Kind', 'Domain', 'Status', 'Progress', 'Started', 'Waits for'], rows);
}

/** What has to happen for the operation to go on; `-` when it has ended. */
function waitsFor(operation: OperationView): string {
  if (operation.status === 'attention') {
    return `a person: ${operation.reason ?? 'no reason was kept'}`;
  }
  if (operation.status === 'waiting') {
    return `the next start: ferry start ${operation.domainName}`;
  }
  if (operation.status !== 'running') return '-';
  const doing = operation.steps.find((step) => step.mark === 'doing');
  return doing?.text ?? operation.progress?.phase ?? operation.story.now ?? 'its next step';
}

const marks: Readonly<Record<StepView['mark'], string>> = {
  none: '[      ]',
  doing: '[DOING ]',
  done: '[done  ]',
  undone: '[undone]',
};

export function operationText(operation: OperationView, paint: Paint = plain): string {
  const { id, kind, domainName, status, direction, reason, startedAt, endedAt } = operation;
  const { progress, copies, pauses, story, source } = operation;
  // Why it waits for a person stands with what it waits for.
  const stated = status === 'attention' ? null : reason;
  const facts = [
    ['what it does', story.what],
    ['started', localTime(Date.parse(startedAt))],
    ...(endedAt === null ? [] : [['ended', localTime(Date.parse(endedAt))]]),
    ...present(direction === 'back' ? 'undone because' : 'reason', stated),
    ...story.said.map(({ time, by, text }) => [
      'resolved',
      `${text}; by ${by}, ${localTime(Date.parse(time))}`,
    ]),
    ['so far', story.soFar],
    ...(progress === null
      ? []
      : [['progress', progressText(progress)], ...progressFacts(progress)]),
    ...present('now', story.now),
    ...present('after that', story.next),
    ...present('waits for', story.waitsFor === story.now ? null : story.waitsFor),
    ...present('way back', story.wayBack),
    ...(source === null ? [] : sourceFacts(source)),
    ...copies.map((copy) => ['copy', copyText(copy)]),
    ...pauses.map(({ what, ms }) => ['guest pause', `${msText(ms)} (${what})`]),
  ];
  const goesBack = status === 'running' && direction === 'back' ? ', on its way back' : '';
  const heading = `Operation ${id}: ${kind} of ${domainName}, ${status}${goesBack}`;
  return [
    paint(status === 'attention' ? 'bad' : 'strong', heading),
    ...aligned(facts).map((line) => `  ${line}`),
    ...stepLines(operation),
    ...hintLines([...(progress?.convergence.ladder ?? []), ...story.commands], paint),
  ].join('\n');
}

function copyText({ to, how, root, verified }: CopyView): string {
  if (how === null) return `${to}: not whole yet`;
  if (how === 'reflink')
    return `${to}: shares its blocks with the source, so there is nothing to compare`;
  const maker = how === 'convert' ? 'made by qemu-img, ' : '';
  return `${to}: ${maker}root hash ${root ?? 'unknown'}, ${verifiedText(verified)}`;
}

/** How a copy was verified, as the end of a sentence. */
function verifiedText(verified: CopyView['verified']): string {
  if (verified === null) return 'not verified: copied by an older ferryd';
  const { how, readBackBytes: all, fromStorageBytes, repairedBytes, seconds } = verified;
  if (how === 'none') return 'not verified, as asked for';
  const cached = all - fromStorageBytes;
  const where =
    cached === 0n
      ? 'past the page cache'
      : `${cached === all ? '' : `${humanBytes(cached)} of it `}through the page cache as far as the kernel tells`;
  const repaired =
    repairedBytes === 0n
      ? ''
      : `; ${humanBytes(repairedBytes)} were different and were copied again: have that storage checked`;
  return `verified (${how}): ${humanBytes(all)} read back in ${duration(Math.ceil(seconds))}, ${where}${repaired}`;
}

/** What becomes of the old images of a move, and how much older they are. */
function sourceFacts({
  keepSeconds,
  keptUntil,
  undoUntil,
  images,
}: SourceView): readonly string[][] {
  const fate =
    keptUntil === null
      ? `kept ${keptText({ keepSeconds, shared: false })}`
      : `kept until ${localTime(Date.parse(keptUntil))}, and then deleted`;
  const isKept = images.some(({ state }) => state === 'kept');
  const heading = isKept || images.length === 0 ? [['source', fate]] : [];
  const back =
    undoUntil === null ? [] : [['way back', `open until ${localTime(Date.parse(undoUntil))}`]];
  return [...back, ...heading, ...images.map((image) => ['source', sourceText(image)])];
}

function sourceText({ path, state, why, older }: SourceView['images'][number]): string {
  if (state === 'deleted') return `${path}: deleted`;
  const age = older === null ? '' : `, ${olderText(older)}`;
  return `${path}: kept${why === null ? '' : `, for ${why}`}${age}`;
}

/** One line over all copies that were of data, none when there are none. */
function verificationLines({ copies }: OperationView): readonly string[] {
  const all = copies.filter(({ how }) => how === 'data').map(({ verified }) => verified);
  if (all.length === 0) return [];
  return [`  copies: ${verifiedText(all.reduce((a, b) => a && b && addedUp(a, b)))}`];
}

type Verified = NonNullable<CopyView['verified']>;

const addedUp = (a: Verified, b: Verified): Verified => ({
  how: a.how,
  readBackBytes: a.readBackBytes + b.readBackBytes,
  fromStorageBytes: a.fromStorageBytes + b.fromStorageBytes,
  repairedBytes: a.repairedBytes + b.repairedBytes,
  seconds: a.seconds + b.seconds,
});

const present = (name: string, value: string | null): readonly (readonly string[])[] =>
  value === null ? [] : [[name, value]];

/** What to type, with what it does behind it. */
export function hintLines(hints: readonly CommandHint[], paint: Paint): readonly string[] {
  if (hints.length === 0) return [];
  const lines = aligned(hints.map(({ type, why }) => [type, `# ${why}`]));
  return ['  type:', ...lines.map((line) => paint('strong', `    ${line}`))];
}

/** The steps with a line drawn where undoing turns into finishing. */
function stepLines({ steps, commitAt }: OperationView): readonly string[] {
  if (steps.length === 0) return [];
  const rows = aligned(
    steps.map((step, i) => [`${i + 1}`.padStart(2), marks[step.mark], step.kind, step.text]),
  ).map((line) => `  ${line}`);
  const line =
    '  ---- commit: a failure above is undone, from here on the operation is finished ----';
  return ['  steps:', ...rows.slice(0, commitAt), line, ...rows.slice(commitAt)];
}

export function progressText(progress: NonNullable<OperationView['progress']>): string {
  const { phase, percent, doneBytes, totalBytes, ready } = progress;
  // Between copies there is nothing to count.
  const amount =
    totalBytes === 0n ? '' : ` (${humanBytes(doneBytes)} of ${humanBytes(totalBytes)})`;
  const state = ready ? 'READY' : 'not ready';
  const limit = limitText(progress).map((text) => `, ${text}`);
  return `${phase} ${shownPercent(percent, ready)} %${amount}${limit.join('')}, ${state}`;
}

export const msText = (ms: number): string => `${Math.round(ms * 10) / 10} ms`;

/** What is where after a move: `before` and `after` are the disks as the domain had them. */
export function movedText(
  operation: OperationView,
  moved: readonly string[],
  before: readonly DiskView[],
  after: readonly DiskView[],
): string {
  const now = after.filter((disk) => moved.includes(disk.target));
  const live = now.map((disk) => `  ${disk.target} is now live on ${disk.chain[0]?.path ?? '?'}`);
  const pauses = operation.pauses.map(({ what, ms }) => `${what} ${msText(ms)}`).join(', ');
  const inUse = new Set(after.flatMap((disk) => disk.chain.map((image) => image.path)));
  const old = before
    .filter((disk) => moved.includes(disk.target))
    .flatMap((disk) => disk.chain.map((image) => image.path))
    .filter((path) => !inUse.has(path));
  const wasOff = operation.steps.some(({ kind }) => kind === 'arrive');
  return [
    `Operation ${operation.id}: moved ${moved.join(', ')} of ${operation.domainName}`,
    ...live,
    ...verificationLines(operation),
    ...(wasOff ? [] : [`  guest pauses: ${pauses === '' ? 'none measured' : pauses}`]),
    ...leftLines(operation, old, wasOff),
  ].join('\n');
}

/** `old`: the images that the disks had, as the domain named them. */
function leftLines(
  { id, source }: OperationView,
  old: readonly string[],
  wasOff: boolean,
): readonly string[] {
  const images = source?.images ?? [];
  const deleted = images.filter(({ state }) => state === 'deleted').map(({ path }) => path);
  const stays = old.filter((path) => !deleted.includes(path));
  const gone = deleted.length === 0 ? [] : [`  deleted: ${deleted.join(', ')}`];
  if (stays.length === 0) return gone;
  if (source?.undoUntil != null) return [...gone, ...windowLines(id, source.undoUntil)];
  const said = wasOff
    ? [
        '  The old images hold the same until the domain is started: what its guest writes from then on',
        '  is not in them. Do not start a guest from them.',
      ]
    : [
        '  The old images are a point-in-time copy of the moment of the switch, no way back:',
        '  what the guest wrote since is not in them. Do not start a guest from them.',
      ];
  return [
    ...gone,
    ...said,
    ...stays.map((path) => `    ${oldText(path, source)}`),
    ...laterLines(id, source),
  ];
}

function windowLines(id: number, undoUntil: string): readonly string[] {
  const until = localTime(Date.parse(undoUntil));
  return [
    `  The way back is open until ${until}: a mirror brings what the guest writes to the old side too.`,
    `  Go back, in one pause: ferry undo ${id}. Close it, for the room and the writes: ferry undo ${id} --close`,
  ];
}

function oldText(path: string, source: SourceView | null): string {
  const image = source?.images.find((one) => one.path === path);
  const age = image?.older == null ? '' : `, ${olderText(image.older)}`;
  return `${path}${age}${image?.why == null ? '' : `; kept, for ${image.why}`}`;
}

function laterLines(id: number, source: SourceView | null): readonly string[] {
  if (source?.keptUntil == null)
    return ["  When they are needed no more: 'ferry gc' says how they go."];
  const until = localTime(Date.parse(source.keptUntil));
  return [
    `  They are kept until ${until}, and then deleted if nobody uses them; 'ferry keep-source ${id} forever' keeps them.`,
  ];
}

/** Of a copy there is one line, of many there is one for the rest. */
const mostCopies = 2;

const making: ReadonlySet<string> = new Set(['create-image', 'take-device', 'start-fuse']);

/** A move that was begun, in few lines: what goes where, how much of it, and the way back. */
export function beganText(began: OperationView, disks: readonly string[], to: string): string {
  const { id, domainName, steps, story, progress } = began;
  const bytes = (progress?.disks ?? []).reduce((sum, { totalBytes }) => sum + totalBytes, 0n);
  const copied = steps.filter(({ kind }) => kind === 'copy-image' || kind === 'check-image');
  // By full mirrors nothing is copied step by step: what is made tells where it goes.
  const told = copied.length > 0 ? copied : steps.filter(({ kind }) => making.has(kind));
  const copies = told.map(({ text }) => text);
  const shown = copies.slice(0, copies.length > mostCopies ? mostCopies - 1 : mostCopies);
  const more = copies.length - shown.length;
  return [
    `Operation ${id} moves ${disks.join(', ')} of ${domainName} to ${to}${bytes === 0n ? '' : `: ${humanBytes(bytes)}`}`,
    ...shown,
    ...(more === 0 ? [] : [`… and ${more} more images`]),
    `way back: ${story.wayBack ?? 'none'} (ferry ops cancel ${id})`,
  ].join('\n  ');
}
