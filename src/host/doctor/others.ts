// The images of a disk that are not the live one: mirrors, what became stale, what was never finished; since when, and
// by how much they differ where that costs nothing to tell. Pure.

import { showSource } from '../../block/layer.js';
import type { Disk, DiskMirror } from '../../domain/disk.js';
import type { ImageRole } from '../../domain/record.js';
import type { OperationRecord } from '../../journal/journal.js';
import { isOpenOffline } from '../offline.js';
import type { DomainFacts } from './facts.js';
import type { Images, Live } from './live.js';
import type { OtherImage } from './types.js';

export function othersOf(
  facts: DomainFacts,
  disk: Disk,
  live: Live,
  images: Images,
  nowSeconds: number,
): readonly OtherImage[] {
  const roles = facts.roles
    .filter((role) => role.target === disk.target && role.path !== live.images[0]?.path)
    .map((role) => formerImage(facts, role, live, images, nowSeconds));
  return [
    ...mirrorImage(facts, disk, live, images),
    ...copiesUnderWay(facts.open, disk.target),
    ...roles,
  ];
}

/** Of a domain that is moved while it is shut off: nothing there counts before all of it does. */
const copiesUnderWay = (open: readonly OperationRecord[], target: string): readonly OtherImage[] =>
  open.filter(isOpenOffline).flatMap(({ id, plan, steps }) => {
    const way = plan.offline?.ways.find((one) => one.target === target);
    const paths = new Set(way?.to.map(({ source }) => showSource(source)) ?? []);
    return plan.steps.flatMap((step, i): readonly OtherImage[] => {
      const mark = steps[i]?.mark ?? 'none';
      if (step.kind !== 'copy-image' || !paths.has(step.to) || mark === 'none') return [];
      return [
        {
          path: mark === 'done' ? step.to : `${step.to}.part`,
          what: 'unfinished',
          sinceSeconds: null,
          ageSeconds: null,
          older: null,
          differsAtMostBytes: null,
          text: `${mark === 'done' ? 'copied' : 'being copied'} from ${step.from} by operation ${id}; it counts once all is copied, and nothing is written to the source until then`,
        },
      ];
    });
  });

function mirrorImage(
  facts: DomainFacts,
  disk: Disk,
  live: Live,
  images: Images,
): readonly OtherImage[] {
  const { mirror } = disk;
  if (mirror === null || showSource(mirror.image.source) === live.images[0]?.path) return [];
  const path = showSource(mirror.image.source);
  const differs = differsAtMost(path, live, images);
  const common = { path, sinceSeconds: null, ageSeconds: null, older: null } as const;
  if (facts.qemu === null) {
    const text = 'its mirror ended with QEMU, never complete';
    return [{ ...common, what: 'unfinished', differsAtMostBytes: differs, text }];
  }
  const text = `${mirrorState(facts, mirror)}; nothing is switched`;
  return [{ ...common, what: 'mirror', differsAtMostBytes: null, text }];
}

/** As QEMU has it; the journal's word may be older. */
function mirrorState({ qemu }: DomainFacts, { jobId, ready }: DiskMirror): string {
  const jobs = qemu?.monitor.state === 'answered' ? qemu.monitor.jobs : null;
  const job = jobs?.find(({ id }) => id === jobId);
  if (jobs !== null && job === undefined)
    return 'its job is gone from QEMU, so it is not kept any more';
  if (job?.problem != null) return 'stopped, not in step';
  const isReady = job?.isReady ?? ready === 'yes';
  return isReady ? 'in step (READY)' : 'being copied to, not in step yet';
}

function formerImage(
  { older }: DomainFacts,
  role: ImageRole,
  live: Live,
  images: Images,
  nowSeconds: number,
): OtherImage {
  const { path, sinceSeconds } = role;
  const isBelow = live.images.some((image) => image.path === path);
  const texts = {
    stale: 'a copy of that moment; what was written since is not in it',
    unfinished: 'the target of a mirror that ended without a switch',
    sealed: 'below the live image; writing to it would damage that',
  } as const;
  const also = isBelow ? '; it is still needed, for the live image stands on it' : '';
  return {
    path,
    what: role.role,
    sinceSeconds,
    ageSeconds: Math.max(0, nowSeconds - sinceSeconds),
    older: older.get(path) ?? null,
    differsAtMostBytes: differsAtMost(path, live, images),
    text: `${texts[role.role]}${also}${goneText(path, images)}`,
  };
}

const goneText = (path: string, images: Images): string =>
  images.get(path)?.problem === 'it is not there' ? '; the file is not there any more' : '';

/**
 * What two chains hold above the image that both stand on is all that can differ. Null: they share none, or a size is
 * not known.
 */
function differsAtMost(path: string, live: Live, images: Images): bigint | null {
  const paths = live.images.map((image) => image.path);
  const own: string[] = [];
  for (let at: string | null = path; at !== null; at = images.get(at)?.names ?? null) {
    const shared = paths.indexOf(at);
    if (shared >= 0) return sum([...own, ...paths.slice(0, shared)], images);
    if (own.includes(at)) return null;
    own.push(at);
  }
  return null;
}

function sum(paths: readonly string[], images: Images): bigint | null {
  let total = 0n;
  for (const path of paths) {
    const bytes = images.get(path)?.allocatedBytes ?? null;
    if (bytes === null) return null;
    total += bytes;
  }
  return total;
}
