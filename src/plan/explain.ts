// Steps in words: one line each, for `ferry ops show` and for whoever reads a journal at night.

import type { Step } from './step.js';

export function explainStep(step: Step): string {
  switch (step.kind) {
    case 'create-image':
      return `make ${step.path}${step.backing === null ? '' : ` over ${step.backing.path}`}`;
    case 'open-node':
      return `open ${fileOf(step.options)} as ${step.options['node-name']}`;
    case 'close-node':
      return `close ${fileOf(step.options)} (${step.options['node-name']})`;
    case 'snapshot':
      return `put new layers on ${step.disks.map((disk) => `${disk.target} (${disk.overlayPath})`).join(', ')}, all at once`;
    case 'start-mirror':
      return `mirror ${step.device} to ${step.target} (job ${step.jobId})`;
    case 'start-commit':
      return `commit ${step.offline.overlayPath} into ${step.offline.base.path} (job ${step.jobId})`;
    case 'wait-ready':
      return `wait until ${step.jobIds.join(', ')} ${step.jobIds.length === 1 ? 'is' : 'are'} READY`;
    case 'copy-image':
      return `copy ${step.from} to ${step.to}`;
    case 'pivot':
      return `switch ${step.disks.map((disk) => `${disk.target} to ${disk.path ?? disk.to}`).join(', ')}, all or none`;
    case 'resume-guest':
      return 'let the guest go on';
    case 'pause-guest':
      return 'stop the CPUs of the guest';
    case 'cancel-job':
      return `end job ${step.jobId}`;
    case 'seal-job':
      return `end job ${step.jobId}, leaving its target an exact point in time`;
    case 'dismiss-jobs':
      return `take ${step.jobIds.join(', ')} off QEMU's list`;
    case 'remove-file':
      return `remove ${step.path}, which this operation made`;
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

const fileOf = (options: Extract<Step, { readonly kind: 'open-node' }>['options']): string =>
  'filename' in options.file ? options.file.filename : `nbd export ${options.file.export}`;
