// What is known to be wrong with a QEMU of a certain version and matters to a move: the table behind "risks" of a plan.
// Only bugs that this project does not go round by itself, and only those that can meet the disks in question.

import type { Disk } from '../domain/disk.js';

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

interface KnownBug {
  /** First releases with the cure, one a stable branch; later branches have it too. Empty: no release is known to have it. */
  readonly curedIn: readonly QemuVersion[];
  meets(disk: Disk): boolean;
  /** What can happen and what keeps it off, as the end of a sentence about these disks. */
  readonly text: string;
}

const knownBugs: readonly KnownBug[] = [
  {
    // CVE-2023-5088; QEMU commit 7d7512019fc4, "hw/ide: reset: cancel async DMA operation before resetting state".
    curedIn: [version(7, 2, 7), version(8, 1, 3), version(8, 2, 0)],
    meets: ({ bus }) => bus === 'ide' || bus === 'sata',
    text: 'a controller that the guest resets while storage is slow can write to sector 0 (CVE-2023-5088): virtio, or a newer QEMU, keeps it off',
  },
  {
    // qemu-devel, April 2026, "block/io: fix reproducible silent data corruption in write-vs-discard race": since 1.0.
    curedIn: [],
    meets: ({ driver, format }) => driver.discard === 'unmap' && format === 'qcow2',
    text: "a guest that discards a range while it writes to it can damage the qcow2 image (all releases so far): discard='ignore' keeps it off",
  },
];

/** Sentences for a person, each with the disks that it is about. Empty: nothing is known of this QEMU with these disks. */
export function risksOfQemu(qemu: QemuVersion, disks: readonly Disk[]): readonly string[] {
  return knownBugs
    .filter(({ curedIn }) => !isCured(qemu, curedIn))
    .flatMap(({ meets, text }) => {
      const targets = disks.filter(meets).map(({ target }) => target);
      if (targets.length === 0) return [];
      return [`QEMU ${qemu.major}.${qemu.minor}.${qemu.micro}, ${targets.join(', ')}: ${text}`];
    });
}

/** Releases of a branch that got the cure count from there on; branches after the last that got it have it from their start. */
function isCured(qemu: QemuVersion, curedIn: readonly QemuVersion[]): boolean {
  const last = curedIn.at(-1);
  if (last === undefined) return false;
  const inBranch = curedIn.find(({ major, minor }) => major === qemu.major && minor === qemu.minor);
  return inBranch === undefined ? isAfter(qemu, last) : qemu.micro >= inBranch.micro;
}

const isAfter = (one: QemuVersion, other: QemuVersion): boolean =>
  one.major > other.major || (one.major === other.major && one.minor > other.minor);

function version(major: number, minor: number, micro: number): QemuVersion {
  return { major, minor, micro };
}
