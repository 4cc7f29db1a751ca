// What is wrong with one disk, and what to type about it. Pure.

import { showSource } from '../../block/layer.js';
import type { Disk } from '../../domain/disk.js';
import type { DoctorFacts, DomainFacts } from './facts.js';
import type { Images, Live } from './live.js';
import type { DoctorFinding } from './types.js';

export function diskFindings(
  facts: DoctorFacts,
  domain: DomainFacts,
  disk: Disk,
  live: Live,
): readonly DoctorFinding[] {
  return [
    ...untold(domain, live),
    ...problems(facts.images, live),
    ...otherwise(domain, disk, live),
    ...differing(domain, disk, live, facts.images),
    ...stopped(domain, disk),
    ...held(domain, live, facts.images, facts.running),
  ];
}

function untold({ record }: DomainFacts, { images, candidates }: Live): readonly DoctorFinding[] {
  if (images.length > 0) return [];
  return [
    {
      needsPerson: true,
      text: `start nothing from ${candidates.join(' or ')} before it is known which one is live`,
      commands: [
        {
          type: `ferry doctor ${record.name}`,
          why: 'again, when that is mended',
        },
      ],
    },
  ];
}

/** Images of the live chain that cannot be used. */
const problems = (images: Images, live: Live): readonly DoctorFinding[] =>
  live.images.flatMap(({ path, format }): readonly DoctorFinding[] => {
    const problem = images.get(path)?.problem;
    if (problem == null) return [];
    return [
      {
        needsPerson: true,
        text: `image ${path} of the live chain cannot be used: ${problem}`,
        commands: [
          { type: `ls -l ${path}`, why: 'is its storage mounted, may it be read?' },
          { type: `qemu-img check -U -f ${format} ${path}`, why: 'is it whole? (it only looks)' },
        ],
      },
    ];
  });

/** A mirror whose target an error has stopped (law 11): it hurts no guest, and it does not go on by itself. */
function stopped(
  { record, qemu }: DomainFacts,
  { target, mirror }: Disk,
): readonly DoctorFinding[] {
  const jobs = qemu?.monitor.state === 'answered' ? qemu.monitor.jobs : [];
  const job = jobs.find(({ id }) => id === mirror?.jobId);
  if (mirror === null || job?.problem == null) return [];
  const resume = { execute: 'block-job-resume', arguments: { device: job.id } };
  return [
    {
      needsPerson: true,
      text: `the mirror of ${target} to ${showSource(mirror.image.source)} stopped: ${job.problem}; the guest goes on, unharmed`,
      commands: [
        {
          type: `virsh qemu-monitor-command ${record.name} '${JSON.stringify(resume)}'`,
          why: 'when its target is mended (room, mount): it goes on',
        },
      ],
    },
  ];
}

/** The definition of the next start names something else than what is live. */
function otherwise({ record }: DomainFacts, disk: Disk, live: Live): readonly DoctorFinding[] {
  const top = live.images[0]?.path;
  const defined = record.persistent?.disks.find(({ target }) => target === disk.target);
  // What is half made is settled by its operation, not by a definition.
  if (top === undefined || defined?.source == null || live.saidBy === 'images') return [];
  const named = showSource(defined.source);
  if (named === top || live.isAhead) return [];
  const file = `${record.name}.xml`;
  return [
    {
      needsPerson: record.live === null,
      text: `the definition names ${named} for ${disk.target}; the live image is ${top}; a start from the definition ${record.live === null ? 'is refused' : 'is refused, or uses an old image'}`,
      commands: [
        {
          type: `ferry dumpxml --inactive ${record.name} > ${file}`,
          why: `then put ${top} in the place of ${named}`,
        },
        { type: `ferry define ${file}`, why: 'makes it known' },
      ],
    },
  ];
}

/** Law 7: what the headers say and what was recorded have to be the same. */
function differing(
  { record }: DomainFacts,
  disk: Disk,
  live: Live,
  images: Images,
): readonly DoctorFinding[] {
  if (live.saidBy === 'images') return [];
  return live.images.flatMap(({ path }, i): readonly DoctorFinding[] => {
    const seen = images.get(path);
    const next = live.images[i + 1]?.path ?? null;
    if (seen?.info == null || seen.info.format !== 'qcow2' || seen.names === next) return [];
    const isRefused = record.live === null && (disk.backing === null || disk.openEnded === true);
    return [
      {
        needsPerson: isRefused,
        text:
          `the header of ${path} names ${seen.names ?? 'nothing'} below it, where ${live.saidBy === 'qemu' ? 'QEMU' : 'the journal'} has ${next ?? 'nothing'}` +
          (isRefused ? '; a start is refused until they agree' : ''),
        commands: isRefused
          ? [
              { type: `qemu-img info -U --backing-chain ${path}`, why: 'what the headers say' },
              {
                type: `ferry dumpxml --inactive ${record.name} | ferry define -`,
                why: 'if the headers are right',
              },
            ]
          : [],
      },
    ];
  });
}

/** Somebody else has the live image open for writing. */
function held(
  { qemu, record, open }: DomainFacts,
  live: Live,
  images: Images,
  running: ReadonlySet<number>,
): readonly DoctorFinding[] {
  // An operation that finishes without QEMU has its images open itself.
  if (open.some(({ id }) => running.has(id))) return [];
  const top = live.images[0]?.path;
  const holders = (top === undefined ? undefined : images.get(top)?.holders) ?? [];
  const others = holders.filter(({ pid, writes }) => writes && pid !== qemu?.pid);
  if (others.length === 0 || (qemu !== null && others.every(({ pid }) => pid === null))) return [];
  const who = others.map(({ pid, command }) => `${command} (pid ${pid ?? 'not known'})`);
  return [
    {
      needsPerson: true,
      text: `${top} is open in ${who.join(', ')}, which is not the QEMU of ${record.name}: two writers destroy an image`,
      commands: others.flatMap(({ pid }) =>
        pid === null ? [] : [{ type: `tr '\\0' ' ' < /proc/${pid}/cmdline`, why: 'what it is' }],
      ),
    },
  ];
}
