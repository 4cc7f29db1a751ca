// Files of QEMU processes that are no more, of domains that are gone: logs, sockets, pid files, UEFI variables. Pure.

import { posix } from 'node:path';
import type { DomainRecord } from '../../domain/record.js';
import type { OperationRecord } from '../../journal/journal.js';
import type { Candidate } from './candidates.js';
import type { GcKind } from './types.js';

export interface HostFiles {
  /** Names in `qemu` of the run directory, `log` and `nvram` of the state directory. */
  readonly runFiles: readonly string[];
  readonly logs: readonly string[];
  readonly nvrams: readonly string[];
  readonly runDir: string;
  readonly stateDir: string;
  /** UUIDs of QEMU processes that were met. */
  readonly alive: ReadonlySet<string>;
  readonly records: readonly DomainRecord[];
  readonly open: readonly OperationRecord[];
}

const uuidAtStart = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})[.-]/;

export function hostCandidates(files: HostFiles): readonly Candidate[] {
  const { records, open, alive, runDir, stateDir } = files;
  const uuids = new Set([...records.map(({ uuid }) => uuid), ...open.map(({ domain }) => domain)]);
  const names = new Set([
    ...records.map(({ name }) => name),
    ...open.map(({ domainName }) => domainName),
  ]);
  const run = files.runFiles.flatMap((file) => {
    const uuid = uuidAtStart.exec(file)?.[1];
    if (uuid === undefined || uuids.has(uuid) || alive.has(uuid)) return [];
    return [left('run-file', posix.join(runDir, 'qemu', file), uuid, null)];
  });
  const logs = ofGone(files.logs, '.log', names).map(({ file, name }) =>
    left('log', posix.join(stateDir, 'log', file), null, name),
  );
  const nvrams = ofGone(files.nvrams, '_VARS.fd', names).map(({ file, name }) => ({
    ...left('nvram', posix.join(stateDir, 'nvram', file), null, name),
    elsewhere: 'a new domain gets its UEFI variables from a template',
    onlyByName: 'it holds what the guest wrote into its UEFI variables, its boot entries for one',
  }));
  return [...run, ...logs, ...nvrams];
}

const ofGone = (
  files: readonly string[],
  suffix: string,
  names: ReadonlySet<string>,
): readonly { readonly file: string; readonly name: string }[] =>
  files
    .filter((file) => file.endsWith(suffix))
    .map((file) => ({ file, name: file.slice(0, -suffix.length) }))
    .filter(({ name }) => !names.has(name));

const texts = {
  log: 'it is the log of a QEMU that is no more, in our own state directory',
  nvram: 'it lies in our own state directory',
  'run-file': 'it belongs to a QEMU that is no more, in our own run directory',
} as const;

const left = (
  kind: Extract<GcKind, keyof typeof texts>,
  path: string,
  domain: string | null,
  domainName: string | null,
): Candidate => ({
  path,
  kind,
  domain,
  domainName,
  target: null,
  role: null,
  left: null,
  ours: `${texts[kind]}; the domain is gone`,
  elsewhere: 'nothing in it is needed for any image',
  doubt: null,
  keptUntilMs: null,
  onlyByName: null,
});
