// One domain, judged: its state, each disk, what is under way and waits for whom. Pure.

import type { Disk } from '../../domain/disk.js';
import { diskFindings } from './findings.js';
import type { DoctorFacts, DomainFacts } from './facts.js';
import type { Images, Named } from './live.js';
import { disksOf, liveOf } from './live.js';
import { othersOf } from './others.js';
import { owedFindings } from './owed.js';
import type { ChainImage, DiskDiagnosis, DoctorFinding, DomainDiagnosis } from './types.js';
import { mirrorFindings, operationFinding, qemuFindings } from './waits.js';

export function diagnoseDomain(facts: DoctorFacts, domain: DomainFacts): DomainDiagnosis {
  const { record, open } = domain;
  const disks = disksOf(record)
    .filter((disk) => disk.source !== null)
    .map((disk) => diagnoseDisk(facts, domain, disk));
  return {
    name: record.name,
    uuid: record.uuid,
    state: stateOf(domain),
    disks,
    findings: [
      ...qemuFindings(facts, domain),
      ...open.map((operation) => operationFinding(facts, facts.running, operation)),
      ...owedFindings(record),
      ...mirrorFindings(domain),
      ...leftFindings(disks),
    ],
  };
}

function diagnoseDisk(facts: DoctorFacts, domain: DomainFacts, disk: Disk): DiskDiagnosis {
  const { images, nowSeconds } = facts;
  const live = liveOf(domain, disk, images);
  return {
    target: disk.target,
    live: live.images[0]?.path ?? null,
    saidBy: live.saidBy,
    why: live.why,
    candidates: live.candidates,
    chain: live.images.map((image) => chainImage(image, images)),
    others: othersOf(domain, disk, live, images, nowSeconds),
    findings: diskFindings(facts, domain, disk, live),
  };
}

export function chainImage({ path, format }: Named, images: Images): ChainImage {
  const seen = images.get(path);
  return {
    path,
    format,
    allocatedBytes: seen?.allocatedBytes ?? null,
    problem: seen?.problem ?? null,
  };
}

function stateOf({ record, qemu }: DomainFacts): string {
  if (qemu !== null) {
    const { pid, monitor } = qemu;
    return monitor.state === 'answered'
      ? `${monitor.runState} (QEMU ${pid})`
      : `QEMU ${pid} runs, its state cannot be asked`;
  }
  if (record.live !== null) return 'QEMU is gone, and nobody has noticed yet';
  return `shut off (${record.lastState.reason})`;
}

function leftFindings(disks: readonly DiskDiagnosis[]): readonly DoctorFinding[] {
  const left = disks
    .flatMap(({ others }) => others)
    .filter(({ sinceSeconds }) => sinceSeconds !== null);
  if (left.length === 0) return [];
  const text = 'images that are not live any more take room; what may go, and why, says gc';
  return [{ needsPerson: false, text, commands: [{ type: 'ferry gc', why: 'it only lists' }] }];
}
