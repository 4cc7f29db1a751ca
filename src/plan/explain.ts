// Steps in words: one line each, for `ferry ops show` and for whoever reads a journal at night.

import { explainPivot, isoSeconds } from './pivot-when.js';
import type { Step, StepKind } from './step.js';

export function explainStep(step: Step): string {
  switch (step.kind) {
    case 'create-image':
      return `make ${step.path}${step.backing === null ? '' : ` over ${step.backing.path}`}`;
    case 'recreate-image':
      return `make ${step.path} anew${step.backing === null ? '' : ` over ${step.backing.path}`}`;
    case 'open-node':
      return `open ${fileOf(step.options)} as ${step.options['node-name']}`;
    case 'close-node':
      return `close ${fileOf(step.options)} (${step.options['node-name']})`;
    case 'snapshot':
      return `put new layers on ${step.disks.map((disk) => `${disk.target} (${disk.overlayPath})`).join(', ')}, all at once`;
    case 'start-mirror':
      return `mirror ${step.device} to ${step.target} (job ${step.jobId})`;
    case 'start-commit':
      return `commit ${step.offline.overlayPaths.join(', ')} into ${step.offline.base.path} (job ${step.jobId})`;
    case 'wait-ready':
      return `wait until ${step.jobIds.join(', ')} ${step.jobIds.length === 1 ? 'is' : 'are'} READY`;
    case 'wait-pivot':
      return `wait, in step, for ${explainPivot(step.when, 'ferry pivot')}`;
    case 'wait-window':
      return `keep the way back of operation ${step.move} open until ${isoSeconds(step.untilMs)}`;
    case 'copy-image':
      return `copy ${step.from} to ${step.to}`;
    case 'hold-images':
      return `keep writers off ${step.images.map(({ path }) => path).join(', ')}`;
    case 'arrive':
      return `let the definition name ${step.copies.join(', ')}, if nobody wrote to what was copied`;
    case 'let-go-images':
      return 'let the old images go';
    case 'pivot':
      return `switch ${step.disks.map((disk) => `${disk.target} to ${disk.path ?? disk.to}`).join(', ')}, all or none${step.quiesce === true ? ', the file systems of the guest frozen' : ''}`;
    case 'resume-guest':
      return 'let the guest go on';
    case 'thaw-guest':
      return 'thaw the file systems of the guest';
    case 'trim-guest':
      return 'let the agent of the guest discard what its file systems do not use';
    case 'pause-guest':
      return 'stop the CPUs of the guest';
    case 'cancel-job':
      return `end job ${step.jobId}`;
    case 'seal-job':
      return `end job ${step.jobId}, leaving its target an exact point in time`;
    case 'rotate':
      return `seal the layers of ${step.disks.map((disk) => disk.snapshot.target).join(', ')} on both sides and put new ones on, mirrored, all at once`;
    case 'seal':
      return `end the mirrors of ${step.disks.map((disk) => disk.target).join(', ')} with both sides equal`;
    case 'close-sealed':
      return `close the targets of ${step.disks.map((disk) => disk.target).join(', ')}`;
    case 'stamp':
      return `note what both sides of ${step.disks.map((disk) => disk.target).join(', ')} look like`;
    case 'dismiss-jobs':
      return `take ${step.jobIds.join(', ')} off QEMU's list`;
    case 'remove-file':
      return `remove ${step.path}`;
    case 'create-nvram':
      return `make ${step.path} from ${step.template}${step.reset ? '' : ' unless it is there'}`;
    case 'start-qemu':
      return `start ${step.start.emulator}, its CPUs stopped (log: ${step.start.logFile})`;
    case 'kill-qemu':
      return 'end QEMU';
    case 'signal-guest':
      return step.signal === 'reset' ? 'reset the guest' : 'press the power button of the guest';
    case 'record':
      return 'make it known';
  }
}

/** What undoing does, by kind of step; kinds that are not here leave nothing that a person would see. */
const undoing: Readonly<Partial<Record<StepKind, string>>> = {
  'create-image': 'removes the files that it made',
  'copy-image': 'removes the files that it made',
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
