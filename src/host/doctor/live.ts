// Which image of a disk is live, and why. Pure. In the order of trust:
//
//   QEMU answers                          its graph: what the disk has as its root is what the guest writes
//   QEMU runs and does not answer         the journal, unless a step is under way that changes the root: cannot be told
//   no QEMU, a snapshot was under way     the new layer if anything is in it, else the image below (see below)
//   no QEMU                               the journal: what a record names holds every acknowledged write (law 1)
//
// A pivot needs no such row: its guest stands still until the record with the new chain is durable, so without that
// record the old chain holds everything. A snapshot does not stop its guest, so the guest may have written to the new
// layer before the journal knew; and it is undone by bringing that layer's data down before it is emptied.

import type { Image } from '../../block/layer.js';
import { sameSource, showSource } from '../../block/layer.js';
import type { Disk } from '../../domain/disk.js';
import { imagesOf } from '../../domain/disk.js';
import type { DomainRecord } from '../../domain/record.js';
import type { OperationRecord } from '../../journal/journal.js';
import { explainStep } from '../../plan/explain.js';
import type { DomainFacts, ImageFacts, QemuDisk, QemuFacts } from './facts.js';
import type { DiskDiagnosis } from './types.js';

/** Path and format of an image, whoever named it. */
export interface Named {
  readonly path: string;
  readonly format: string;
}

export interface Live extends Pick<DiskDiagnosis, 'saidBy' | 'why' | 'candidates'> {
  /** Active first; empty: it cannot be told. */
  readonly images: readonly Named[];
  /** QEMU has switched and the journal does not know yet. */
  readonly isAhead: boolean;
}

export type Images = ReadonlyMap<string, ImageFacts>;

/** The disks of a domain as they count now: of the running definition, or of the only one. */
export const disksOf = ({ live, persistent }: DomainRecord): readonly Disk[] =>
  (live?.definition ?? persistent)?.disks ?? [];

/** The chain of a disk as the journal has it, active first. */
export function recordedImages({ live, chains }: DomainRecord, disk: Disk): readonly Image[] {
  const recorded = chains.find(({ target }) => target === disk.target)?.images;
  const top = recorded?.[0];
  const isLeftOpen = live === null && disk.backing === null && disk.source !== null;
  return isLeftOpen &&
    recorded !== undefined &&
    top !== undefined &&
    sameSource(top.source, disk.source)
    ? recorded
    : imagesOf(disk);
}

export function liveOf(facts: DomainFacts, disk: Disk, images: Images): Live {
  const recorded = recordedImages(facts.record, disk).map(named);
  const { qemu } = facts;
  if (qemu === null) return withoutQemu(facts, disk, recorded, images);
  const { monitor } = qemu;
  if (monitor.state === 'answered') {
    const seen = monitor.disks.find(({ device }) => device === disk.alias);
    return seen === undefined
      ? unanswered(facts, disk, recorded, `QEMU (pid ${qemu.pid}) shows no device '${disk.alias}'`)
      : fromQemu(facts, disk, recorded, seen);
  }
  const why =
    monitor.state === 'busy'
      ? 'its monitor is busy, for another program is connected to it'
      : `its monitor does not answer: ${monitor.problem}`;
  return unanswered(facts, disk, recorded, `QEMU (pid ${qemu.pid}) runs, and ${why}`);
}

const named = ({ source, format }: Image): Named => ({ path: showSource(source), format });

function fromQemu(
  facts: DomainFacts,
  disk: Disk,
  recorded: readonly Named[],
  seen: QemuDisk,
): Live {
  const state = runState(facts.qemu);
  const does = disk.readonly ? 'reads it' : 'reads and writes it';
  const says = `QEMU (pid ${facts.qemu?.pid}, ${state}) ${does}`;
  // QEMU spells what is on the network in another way.
  const isLocal = recorded[0]?.path.startsWith('/') === true;
  const images = isLocal ? seen.images : recorded;
  const isAhead = images[0]?.path !== recorded[0]?.path;
  const why = isAhead
    ? [says, ...aheadTexts(facts, disk, recorded[0]?.path ?? 'none', state)]
    : [`${says}, and the journal says the same`];
  return { saidBy: 'qemu', images, why, candidates: [], isAhead };
}

function aheadTexts(
  facts: DomainFacts,
  disk: Disk,
  recorded: string,
  state: string,
): readonly string[] {
  const under = touching(facts.open, disk.target);
  if (under === null)
    return [
      `the journal names ${recorded} instead, and no operation explains that: somebody changed it through the monitor`,
    ];
  const text = `the journal still names ${recorded}: ${called(under.operation)} was at step ${under.step + 1} and has not written it down yet`;
  const still = `the guest stands still, so ${recorded} holds the same until it goes on`;
  return state === 'running' ? [text] : [text, still];
}

/** `operation 7 'move'`. */
const called = ({ id, kind }: OperationRecord): string => `operation ${id} '${kind}'`;

const runState = (qemu: QemuFacts | null): string =>
  qemu?.monitor.state === 'answered' ? qemu.monitor.runState : 'state not known';

function unanswered(
  facts: DomainFacts,
  disk: Disk,
  recorded: readonly Named[],
  problem: string,
): Live {
  const under = touching(facts.open, disk.target);
  if (under?.isUnderWay !== true) {
    const why = [problem, 'the journal names this one, and nothing is under way that changes it'];
    return { saidBy: 'journal', images: recorded, why, candidates: [], isAhead: false };
  }
  const { operation, step } = under;
  const text = explainStep(under.is);
  const why = [
    problem,
    `${called(operation)} was at step ${step + 1} (${text}), and only QEMU knows whether that has happened`,
  ];
  const candidates = [recorded[0]?.path, under.next].flatMap((path) => path ?? []);
  return { saidBy: 'nobody', images: [], why, candidates, isAhead: false };
}

function withoutQemu(
  facts: DomainFacts,
  disk: Disk,
  recorded: readonly Named[],
  images: Images,
): Live {
  const { record } = facts;
  const wrong = facts.roles.find(
    (role) =>
      record.live === null && role.target === disk.target && role.path === recorded[0]?.path,
  );
  if (wrong !== undefined) {
    const why = [
      `the journal names it: ${wrong.path}, which the definition names, is ${wrong.role} for this disk`,
    ];
    const live = { path: wrong.live, format: disk.format };
    return { saidBy: 'journal', images: [live], why, candidates: [], isAhead: false };
  }
  const state = record.live === null ? offText(record) : 'QEMU is gone';
  const half = halfSnapshot(facts.open, disk.target);
  if (half !== null) return fromOverlay(recorded, half, images, state);
  const under = touching(facts.open, disk.target);
  const still =
    under?.isUnderWay === true
      ? [
          `${called(under.operation)} was about to switch to ${under.next ?? 'another image'}; its guest stood still until that would have been written down, and it is not`,
        ]
      : [];
  return {
    saidBy: 'journal',
    images: recorded,
    why: [
      `${state}; the journal names it, and what it names holds every write that the guest saw flushed`,
      ...still,
    ],
    candidates: [],
    isAhead: false,
  };
}

const offText = ({ lastState }: DomainRecord): string =>
  `the domain is shut off (${lastState.reason})`;

interface Touching {
  readonly operation: OperationRecord;
  readonly step: number;
  readonly is: OperationRecord['plan']['steps'][number];
  /** Begun, done or not; on the way back: to be undone, undone or not. */
  readonly isUnderWay: boolean;
  /** The image that the disk has after it. */
  readonly next: string | null;
}

/** The step of an open operation that changes the root of `target` and comes next or is under way. */
function touching(open: readonly OperationRecord[], target: string): Touching | null {
  for (const operation of open)
    for (const [step, is] of operation.plan.steps.entries()) {
      const mark = operation.steps[step]?.mark ?? 'none';
      const isBack = operation.direction === 'back';
      if (isBack ? mark === 'none' || mark === 'undone' : mark === 'done') continue;
      const next = rootAfter(is, target, isBack);
      const isUnderWay = isBack || mark === 'doing';
      if (next !== undefined) return { operation, step, is, isUnderWay, next };
    }
  return null;
}

/** Undefined: the step does not change it. */
function rootAfter(
  step: Touching['is'],
  target: string,
  isBack: boolean,
): string | null | undefined {
  if (step.kind === 'snapshot') {
    const disk = step.disks.find((one) => one.target === target);
    return isBack ? disk?.base.path : disk?.overlayPath;
  }
  if (step.kind !== 'pivot') return undefined;
  const disk = step.disks.find((one) => one.target === target);
  return isBack && disk !== undefined ? null : disk?.path;
}

interface HalfSnapshot {
  readonly operation: OperationRecord;
  readonly overlay: string;
  readonly base: Named;
}

/** A snapshot of which the journal does not know whether it came to be, or that is being undone. */
function halfSnapshot(open: readonly OperationRecord[], target: string): HalfSnapshot | null {
  for (const operation of open)
    for (const [i, step] of operation.plan.steps.entries()) {
      if (step.kind !== 'snapshot') continue;
      const mark = operation.steps[i]?.mark ?? 'none';
      const isHalf = mark === 'doing' || (mark === 'done' && operation.direction === 'back');
      const disk = step.disks.find((one) => one.target === target);
      if (isHalf && disk !== undefined)
        return { operation, overlay: disk.overlayPath, base: disk.base };
    }
  return null;
}

function fromOverlay(
  recorded: readonly Named[],
  { operation, overlay, base }: HalfSnapshot,
  images: Images,
  state: string,
): Live {
  const facts = images.get(overlay);
  const isBack = operation.direction === 'back';
  const under = `${state}, and ${called(operation)} was ${isBack ? 'taking back' : 'making'} the layer ${overlay}`;
  const at = recorded.findIndex(({ path }) => path === base.path);
  const below = at < 0 ? [base] : recorded.slice(at);
  // Emptied by the undo, once its data was down.
  const isEmptied = isBack && facts?.sizeBytes === 0n;
  if (isEmptied || facts?.isEmpty === true) {
    const why = [under, 'nothing is in that layer, so everything is in the image below it'];
    return { saidBy: 'images', images: below, why, candidates: [], isAhead: false };
  }
  if (facts?.isEmpty === false) {
    const why = [under, 'the guest has written to that layer, so it counts, over what is below it'];
    const top = { path: overlay, format: 'qcow2' };
    return { saidBy: 'images', images: [top, ...below], why, candidates: [], isAhead: false };
  }
  // Also when it is not there: it was, and its storage may only not be mounted.
  const why = [
    under,
    `whether the guest wrote to that layer cannot be told: ${facts?.problem ?? 'it was not looked at'}; is its storage mounted?`,
  ];
  return { saidBy: 'nobody', images: [], why, candidates: [overlay, base.path], isAhead: false };
}

/** The live image of a domain that is gone and of which only an open operation tells. */
export function liveByPlan(operation: OperationRecord, target: string, images: Images): Live {
  const state = 'the domain is gone with its QEMU';
  const half = halfSnapshot([operation], target);
  if (half !== null) return fromOverlay([], half, images, state);
  let root: Named | null = null;
  for (const [i, step] of operation.plan.steps.entries()) {
    const isDone = operation.steps[i]?.mark === 'done';
    if (step.kind === 'snapshot') {
      const disk = step.disks.find((one) => one.target === target);
      if (disk !== undefined)
        root = isDone ? { path: disk.overlayPath, format: 'qcow2' } : disk.base;
    }
    const switched = step.kind === 'pivot' ? step.disks.find((one) => one.target === target) : null;
    if (isDone && switched?.path != null)
      root = { path: switched.path, format: switched.offline?.base.format ?? 'qcow2' };
  }
  if (root === null)
    return { saidBy: 'nobody', images: [], why: [state], candidates: [], isAhead: false };
  const why = [`${state}; what ${called(operation)} has done so far makes it this one`];
  return { saidBy: 'journal', images: [root], why, candidates: [], isAhead: false };
}

/** Disks that an operation changes the images of. */
export const targetsOf = ({ plan }: OperationRecord): readonly string[] => [
  ...new Set(
    plan.steps.flatMap((step) =>
      step.kind === 'snapshot' || step.kind === 'pivot'
        ? step.disks.map(({ target }) => target)
        : [],
    ),
  ),
];
