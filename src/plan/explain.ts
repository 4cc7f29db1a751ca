// Steps in words: one line each, for `ferry ops show` and for whoever reads a journal at night.

import { showSource } from '../block/layer.js';
import { explainPivot, isoSeconds } from './pivot-when.js';
import type { ConvertedImage, ImageFile, PivotDisk, Step, StepKind, StepOf } from './step.js';

/** `as`: the text of a kind is one of steps of that kind, which TypeScript does not see through the union. */
export const explainStep = (step: Step): string =>
  (texts[step.kind] as (step: Step) => string)(step);

const texts: { readonly [K in StepKind]: (step: StepOf<K>) => string } = {
  'create-image': (step) =>
    `make ${step.path}${step.backing === null ? '' : ` over ${step.backing.path}`}`,
  'recreate-image': (step) =>
    `make ${step.path} anew${step.backing === null ? '' : ` over ${step.backing.path}`}`,
  'take-device': (step) => `take ${step.path}, whose content is void from now on`,
  'start-fuse': (step) => `connect to ${showSource(step.fuse.server)} through a process of its own`,
  'end-fuse': () => 'end the process in front of an NBD server, if there is one',
  'open-node': (step) => `open ${fileOf(step.options)} as ${step.options['node-name']}`,
  'close-node': (step) => `close ${fileOf(step.options)} (${step.options['node-name']})`,
  snapshot: (step) =>
    `put new layers on ${step.disks.map((disk) => `${disk.target} (${disk.overlayPath})`).join(', ')}, all at once`,
  'start-mirror': (step) =>
    `mirror ${step.sync === 'full' ? 'all of ' : ''}${step.device} to ${step.target} (job ${step.jobId})`,
  'start-commit': (step) =>
    `commit ${step.offline.overlayPaths.join(', ')} into ${step.offline.base.path} (job ${step.jobId})`,
  'wait-ready': (step) =>
    `wait until ${step.jobIds.join(', ')} ${step.jobIds.length === 1 ? 'is' : 'are'} READY`,
  'wait-pivot': (step) => `wait, in step, for ${explainPivot(step.when, 'ferry pivot')}`,
  'wait-window': (step) =>
    `keep the way back of operation ${step.move} open until ${isoSeconds(step.untilMs)}`,
  'copy-image': (step) =>
    step.convert === undefined
      ? `copy ${step.from} to ${step.to}`
      : explainConversion(step.to, step.convert),
  'check-image': (step) =>
    `compare ${pathOf(step.image)} with ${pathOf(step.source)}, which it takes the place of`,
  'hold-images': (step) => `keep writers off ${step.images.map(({ path }) => path).join(', ')}`,
  arrive: (step) =>
    `let the definition name ${step.copies.join(', ')}, if nobody wrote to what was copied`,
  'let-go-images': () => 'let the old images go',
  pivot: (step) =>
    `switch ${step.disks.map((disk) => `${disk.target} to ${placeOf(disk)}`).join(', ')}, all or none${step.quiesce === true ? ', the file systems of the guest frozen' : ''}`,
  'resume-guest': () => 'let the guest go on',
  'thaw-guest': () => 'thaw the file systems of the guest',
  'trim-guest': () => 'let the agent of the guest discard what its file systems do not use',
  'pause-guest': () => 'stop the CPUs of the guest',
  'cancel-job': (step) => `end job ${step.jobId}`,
  'seal-job': (step) => `end job ${step.jobId}, leaving its target an exact point in time`,
  rotate: (step) =>
    `seal the layers of ${step.disks.map((disk) => disk.snapshot.target).join(', ')} on both sides and put new ones on, mirrored, all at once`,
  seal: (step) =>
    `end the mirrors of ${step.disks.map((disk) => disk.target).join(', ')} with both sides equal`,
  'close-sealed': (step) =>
    `close the targets of ${step.disks.map((disk) => disk.target).join(', ')}`,
  stamp: (step) =>
    `note what both sides of ${step.disks.map((disk) => disk.target).join(', ')} look like`,
  'dismiss-jobs': (step) => `take ${step.jobIds.join(', ')} off QEMU's list`,
  'remove-file': (step) => `remove ${step.path}`,
  'create-nvram': (step) =>
    `make ${step.path} from ${step.template}${step.reset ? '' : ' unless it is there'}`,
  'start-qemu': (step) =>
    `start ${step.start.emulator}, its CPUs stopped (log: ${step.start.logFile})`,
  'kill-qemu': () => 'end QEMU',
  'signal-guest': (step) =>
    step.signal === 'reset' ? 'reset the guest' : 'press the power button of the guest',
  record: () => 'make it known',
};

const placeOf = ({ path, fuse, to }: PivotDisk): string =>
  path ?? (fuse === undefined ? to : showSource(fuse.server));

function explainConversion(to: string, { chain, format, below }: ConvertedImage): string {
  const [top, ...under] = chain.map(({ path }) => path);
  const what =
    below.length > 0 || under.length === 0
      ? `convert ${top}`
      : `flatten ${[top, ...under].join(' over ')}`;
  return `${what} to ${to} (${format})`;
}

const pathOf = ([top]: readonly ImageFile[]): string => top?.path ?? '';

/** What undoing does, by kind of step; kinds that are not here leave nothing that a person would see. */
const undoing: Readonly<Partial<Record<StepKind, string>>> = {
  'create-image': 'removes the files that it made',
  'copy-image': 'removes the files that it made',
  'start-fuse': 'leaves the export, whose content is void, as it is',
  'take-device': 'leaves the device, whose content is void, as it is',
  'start-mirror': 'ends the mirrors',
  'start-commit': 'ends the commit',
  snapshot: 'brings what was written to the new layers down into the images below them',
  'start-qemu': 'ends QEMU',
  pivot: 'switches the disks back',
};

/** What taking `steps` back does, the last one first, as the end of a sentence: `ends the mirrors and removes …`. */
export function explainUndo(steps: readonly Step[]): string {
  const parts = steps.toReversed().flatMap(({ kind }) => undoing[kind] ?? []);
  // What is done several times is said where it comes last.
  const each = parts.filter((part, i) => parts.lastIndexOf(part) === i);
  const last = each.pop();
  if (last === undefined) return 'changes nothing, for nothing was done yet';
  return each.length === 0 ? last : `${each.join(', ')} and ${last}`;
}

/** Where a person sees whether a step was done, when the world does not tell the daemon. */
export function whereToLook(step: Step, domainName: string): string {
  switch (step.kind) {
    case 'create-image':
      return `it is done if 'qemu-img info -U ${step.path}' shows a whole image of ${step.sizeBytes} bytes`;
    case 'copy-image':
      return `it is done if ${step.to} is there and ${step.to}.part is not`;
    case 'check-image':
    case 'take-device':
    case 'start-fuse':
    case 'end-fuse':
    case 'hold-images':
    case 'arrive':
    case 'let-go-images':
      return `nothing has to be looked at: it is done again`;
    case 'remove-file':
      return `it is done if ${step.path} is not there`;
    case 'create-nvram':
      return `it is done if ${step.path} is there`;
    case 'start-qemu':
    case 'kill-qemu':
      return `'ferry doctor ${domainName}' tells whether QEMU runs; its log is beside the database`;
    default:
      return `'ferry doctor ${domainName}' shows what QEMU has open and which jobs it runs`;
  }
}

const fileOf = (options: Extract<Step, { readonly kind: 'open-node' }>['options']): string =>
  'filename' in options.file ? options.file.filename : `nbd export ${options.file.export}`;
