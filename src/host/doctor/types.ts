// What the doctor says: a report as data, for `--json` and for `ferry` to print.

import type { Older } from '../../domain/source-fate.js';
import type { CommandHint } from '../ferry-host.js';

export interface DoctorReport {
  readonly time: string;
  readonly lookedBy: 'ferryd' | 'ferry';
  /** Nothing waits for a person. */
  readonly healthy: boolean;
  /** About the host: its daemon, its journal. */
  readonly findings: readonly DoctorFinding[];
  readonly domains: readonly DomainDiagnosis[];
}

export interface DoctorFinding {
  /** Otherwise it is only good to know. */
  readonly needsPerson: boolean;
  readonly text: string;
  readonly commands: readonly CommandHint[];
}

export interface DomainDiagnosis {
  readonly name: string;
  readonly uuid: string;
  readonly state: string;
  readonly disks: readonly DiskDiagnosis[];
  /** What is under way, what waits, what is owed. */
  readonly findings: readonly DoctorFinding[];
}

export interface DiskDiagnosis {
  readonly target: string;
  /** The image that holds everything that the guest saw acknowledged; null: it cannot be told. */
  readonly live: string | null;
  /** Who says so: QEMU itself, the journal, or the images with what the journal knows of the step that was under way. */
  readonly saidBy: 'qemu' | 'journal' | 'images' | 'nobody';
  readonly why: readonly string[];
  /** When it cannot be told: what it may be. */
  readonly candidates: readonly string[];
  /** The live image and what is below it. */
  readonly chain: readonly ChainImage[];
  /** Images that were or will be live, and must not be started from. */
  readonly others: readonly OtherImage[];
  readonly findings: readonly DoctorFinding[];
}

export interface ChainImage {
  readonly path: string;
  readonly format: string;
  readonly allocatedBytes: bigint | null;
  readonly problem: string | null;
}

export interface OtherImage {
  readonly path: string;
  readonly what: 'mirror' | 'stale' | 'unfinished' | 'sealed';
  readonly sinceSeconds: number | null;
  readonly ageSeconds: number | null;
  /** Of one that is stale: how much older than the live image. */
  readonly older: Older | null;
  /** How many bytes it differs from the live image at most; null: cannot be told without reading both. */
  readonly differsAtMostBytes: bigint | null;
  readonly text: string;
}
