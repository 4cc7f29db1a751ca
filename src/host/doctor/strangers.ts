// Domains that no journal tells of: a QEMU that is met in the run directory, a definition that somebody kept. What
// they say is shown, and not more. Pure.

import { chainImage } from './domain.js';
import type { OperationRecord } from '../../journal/journal.js';
import type { DoctorFacts, QemuFacts, XmlFacts } from './facts.js';
import type { Images } from './live.js';
import { liveByPlan, targetsOf } from './live.js';
import type { DiskDiagnosis, DoctorFinding, DomainDiagnosis } from './types.js';
import { operationFinding } from './waits.js';

export function diagnoseStranger(facts: DoctorFacts, qemu: QemuFacts): DomainDiagnosis {
  const { uuid, name, pid, monitor } = qemu;
  const seen = monitor.state === 'answered' ? monitor : null;
  const disks = (seen?.disks ?? []).map(({ device, images }): DiskDiagnosis => ({
    target: device,
    live: images[0]?.path ?? null,
    saidBy: 'qemu',
    why: [`QEMU (pid ${pid}, ${seen?.runState}) reads and writes it`],
    candidates: [],
    chain: images.map((image) => chainImage(image, facts.images)),
    others: [],
    findings: [],
  }));
  const state = seen === null ? 'its state cannot be asked' : seen.runState;
  return { name, uuid, state: `${state} (QEMU ${pid})`, disks, findings: strange(facts, qemu) };
}

function strange({ journal }: DoctorFacts, { pid, monitor }: QemuFacts): readonly DoctorFinding[] {
  const unknown: DoctorFinding = {
    needsPerson: true,
    text: `the journal does not know QEMU ${pid}: find out whose it is before anything is done with its images`,
    commands: [],
  };
  const found = journal.state === 'read' ? [unknown] : [];
  if (monitor.state !== 'answered') {
    const commands = [
      { type: `ls -l /proc/${pid}/fd`, why: 'what it has open; the live images are among that' },
    ];
    const text = `which images QEMU ${pid} has open cannot be told: ${monitor.problem}`;
    return [...found, { needsPerson: true, text, commands }];
  }
  const written = monitor.alsoWritten.map((path): DoctorFinding => ({
    needsPerson: false,
    text: `QEMU ${pid} also writes ${path}, which no disk reads: the target of a job (a mirror, a commit). Nothing may start from it`,
    commands: [],
  }));
  return [...found, ...written];
}

/** A transient domain whose QEMU died in the middle of an operation: the operation is all that is known of it. */
export function diagnoseOrphan(facts: DoctorFacts, operation: OperationRecord): DomainDiagnosis {
  const { domain, domainName } = operation;
  const disks = targetsOf(operation).map((target): DiskDiagnosis => {
    const { images, saidBy, why, candidates } = liveByPlan(operation, target, facts.images);
    return {
      target,
      live: images[0]?.path ?? null,
      saidBy,
      why,
      candidates,
      chain: images.map((image) => chainImage(image, facts.images)),
      others: [],
      findings: [],
    };
  });
  return {
    name: domainName,
    uuid: domain,
    state: 'gone (transient)',
    disks,
    findings: [operationFinding(facts, facts.running, operation)],
  };
}

export function diagnoseXml(facts: DoctorFacts, xml: XmlFacts): DomainDiagnosis {
  const finding: DoctorFinding = {
    needsPerson: true,
    text: 'which images are live cannot be told from a definition alone. Look at what stands on what, and at what was written last, before anything is started',
    commands: xml.disks.map(({ path }) => ({
      type: `qemu-img info -U --backing-chain ${path}`,
      why: 'what it stands on',
    })),
  };
  return {
    name: xml.name,
    uuid: xml.uuid,
    state: 'known from its XML only',
    disks: xml.disks.map((disk) => diagnoseXmlDisk(facts.images, disk)),
    findings: [finding],
  };
}

function diagnoseXmlDisk(
  images: Images,
  { target, path, namedBy }: XmlFacts['disks'][number],
): DiskDiagnosis {
  const candidates = [path, ...namedBy];
  const above =
    namedBy.length === 0
      ? 'no image in its folder stands on it'
      : `${namedBy.join(', ')} ${namedBy.length === 1 ? 'stands' : 'stand'} on it and may hold what is newer`;
  const holders = candidates.flatMap((one) =>
    (images.get(one)?.holders ?? []).map(
      ({ pid, command }) => `${one} is open in ${command} (pid ${pid ?? 'not known'})`,
    ),
  );
  return {
    target,
    live: null,
    saidBy: 'nobody',
    why: [
      `the definition names ${path}; without QEMU and the journal nobody says whether that is still the live one`,
      above,
      'after a move or a mirror the live image may lie on another storage: look there too',
      ...holders,
      ...candidates.map((one) => writtenText(one, images)),
    ],
    candidates,
    chain: [],
    others: [],
    findings: [],
  };
}

function writtenText(path: string, images: Images): string {
  const seen = images.get(path);
  if (seen?.modifiedSeconds == null) return `${path}: ${seen?.problem ?? 'not looked at'}`;
  return `${path} was last written ${new Date(seen.modifiedSeconds * 1000).toISOString().slice(0, 19)}Z`;
}
