// Snapshots with and without a mirror, and the block job of one disk.

import { resolve } from 'node:path';

import type { Command } from 'commander';

import type { BlockJobView, SnapshotDeleteMode, SnapshotView } from '../host/ferry-host.js';
import { RequestError } from '../std/errors.js';
import type { Session } from './session.js';
import { readInput } from './session.js';
import { snapshotXml } from './snapshot-xml.js';
import type { Branch } from './text.js';
import { drawTree, humanBytes, localTime, percentOf, shownPercent, table } from './text.js';

interface CreateOptions {
  readonly name?: string;
  readonly description?: string;
  readonly diskspec?: readonly string[];
  readonly mirror?: readonly string[];
  readonly metadata: boolean;
  readonly reuseExternal?: true;
  readonly diskOnly?: true;
  readonly atomic?: true;
  readonly printXml?: true;
}

const createExamples = `
Examples:
  ferry snapshot-create vm1 s1.xml --disk-only
  ferry snapshot-create vm1 --name s1 --mirror vda=/dst/vm1-s1.qcow2
  ferry snapshot-create vm1 --diskspec vda,file=/src/s1.qcow2 --mirror vda=/dst/s1.qcow2
  ferry chain vm1                                 # wait until the mirror is READY, then one of
  ferry snapshot-delete vm1 s1 --reopen-mirror    # the guest goes on from the mirror
  ferry snapshot-delete vm1 s1 --remove-mirror    # the guest stays where it is`;

const listed = (value: string, before: readonly string[] = []): readonly string[] => [
  ...before,
  value,
];

export function addSnapshotCommands(program: Command, open: () => Session): void {
  program
    .command('snapshot-create')
    .argument('<domain>', 'name, UUID or id')
    .argument('[file]', 'snapshot XML; - is standard input; default: made from the options')
    .description('snapshot the disks of a running domain, with a mirror if asked for')
    .option('--name <name>', 'name of the snapshot')
    .option('--description <text>', 'description of the snapshot')
    .option(
      '--diskspec <disk[,snapshot=…][,driver=…][,file=…][,mirror=…]>',
      'one disk as in snapshot-create-as of virsh; repeat it for more',
      listed,
    )
    .option('--mirror <disk=path>', 'mirror the new layer of this disk to path', listed)
    .option('--no-metadata', 'keep no snapshot object')
    .option('--reuse-external', 'the images are there already, and are used as they are')
    .option('--disk-only', 'the disks, not the memory; implied by --mirror and --diskspec')
    .option('--atomic', 'all disks or none')
    .option('--print-xml', 'print the XML that the options make, and do nothing')
    .addHelpText('after', createExamples)
    .action((domain: string, file: string | undefined, options: CreateOptions) =>
      createSnapshot(open(), domain, file ?? null, options),
    );

  program
    .command('snapshot-list')
    .argument('<domain>', 'name, UUID or id')
    .description('list the snapshots of a domain')
    .option('--tree', 'draw which came out of which')
    .option('--name', 'only the names, one a line')
    .action(async (domain: string, options: { readonly tree?: true; readonly name?: true }) => {
      const session = open();
      const snapshots = await session.client.listSnapshots(domain);
      session.print(snapshots, () => {
        if (options.tree === true) return snapshotTree(snapshots);
        return options.name === true ? namesOf(snapshots) : snapshotTable(snapshots);
      });
    });

  addDeleteCommand(program, open);
  addBlockjobCommand(program, open);
}

async function createSnapshot(
  session: Session,
  domain: string,
  file: string | null,
  options: CreateOptions,
): Promise<void> {
  const { name = null, description = null } = options;
  const { diskspec: diskspecs = [], mirror: mirrors = [] } = options;
  const disks = diskspecs.length + mirrors.length;
  if (file !== null && (disks > 0 || name !== null || description !== null)) {
    const what = '--name, --description, --diskspec and --mirror are already said in an XML file';
    throw new RequestError('INVALID_ARG', `${what}; give the file or the options`);
  }
  const xml =
    file === null
      ? snapshotXml({ name, description, diskspecs, mirrors }, (path) => resolve(path))
      : await readInput(file);
  if (options.printXml === true) {
    session.print({ xml }, () => xml.trimEnd());
    return;
  }
  const snapshot = await session.client.createSnapshot(domain, xml, {
    diskOnly: options.diskOnly === true || disks > 0,
    noMetadata: !options.metadata,
    reuseExternal: options.reuseExternal === true,
    atomic: options.atomic === true,
  });
  session.print(snapshot, () => createdText(domain, snapshot, options));
}

function createdText(domain: string, snapshot: SnapshotView, options: CreateOptions): string {
  const mirrored = snapshot.disks.filter(({ mirror }) => mirror !== null);
  const ends = options.metadata
    ? [`ferry snapshot-delete ${domain} ${snapshot.name} --reopen-mirror`]
    : mirrored.map(({ target }) => `ferry blockjob ${domain} ${target} --pivot`);
  return [
    `Domain snapshot ${snapshot.name} created`,
    ...mirrored.map(({ target, mirror }) => `  ${target} is being mirrored to ${mirror}`),
    ...(mirrored.length === 0 ? [] : ends.map((command) => `  when it is READY: ${command}`)),
  ].join('\n');
}

const namesOf = (snapshots: readonly SnapshotView[]): string =>
  snapshots.map((snapshot) => snapshot.name).join('\n');

function snapshotTable(snapshots: readonly SnapshotView[]): string {
  const rows = snapshots.map((s) => [
    s.name + (s.current ? ' (current)' : ''),
    localTime(s.creationTimeSeconds * 1000),
    s.state,
    s.disks.map((d) => d.target + (d.mirror === null ? '' : ` => ${d.mirror}`)).join(', '),
  ]);
  return table(['Name', 'Creation Time', 'State', 'Disks'], rows);
}

function snapshotTree(snapshots: readonly SnapshotView[]): string {
  const known = new Set(snapshots.map((snapshot) => snapshot.name));
  const childrenOf = (parent: string): readonly Branch<SnapshotView>[] =>
    snapshots.filter((s) => s.parent === parent).map(branch);
  const branch = (value: SnapshotView): Branch<SnapshotView> => ({
    value,
    children: childrenOf(value.name),
  });
  const label = (s: SnapshotView): string => s.name + (s.current ? ' (current)' : '');
  return snapshots
    .filter((s) => s.parent === null || !known.has(s.parent))
    .flatMap((root) => [
      label(root),
      ...drawTree(childrenOf(root.name)).map(({ lead, value }) => lead + label(value)),
    ])
    .join('\n');
}

const deleteModes = [
  ['reopenMirror', 'reopen-mirror', 'the guest goes on from the mirror'],
  ['removeMirror', 'remove-mirror', 'the mirror is dropped, the guest stays where it is'],
  ['metadata', 'metadata', 'only the snapshot object is forgotten, all images and mirrors stay'],
] as const;

type DeleteOptions = { readonly [M in (typeof deleteModes)[number][0]]?: true };

function addDeleteCommand(program: Command, open: () => Session): void {
  const command = program
    .command('snapshot-delete')
    .argument('<domain>', 'name, UUID or id')
    .argument('<snapshot>', 'its name')
    .description('end a snapshot; one option says what becomes of its mirror');
  for (const [, flag, text] of deleteModes) command.option(`--${flag}`, text);
  command.action(async (domain: string, snapshot: string, options: DeleteOptions) => {
    const mode = deleteMode(options);
    const session = open();
    await session.client.deleteSnapshot(domain, snapshot, mode);
    const text = `Domain snapshot ${snapshot} deleted (${mode})`;
    session.print({ domain, snapshot, done: 'snapshot-delete', mode }, () => text);
  });
}

function deleteMode(options: DeleteOptions): SnapshotDeleteMode {
  const asked = deleteModes.filter(([key]) => options[key] === true);
  const [first] = asked;
  if (first !== undefined && asked.length === 1) return first[1];
  const ways = deleteModes.map(([, flag, text]) => `--${flag} (${text})`).join(', ');
  const wrong =
    asked.length === 0
      ? 'it is not said what becomes of the mirror and the images'
      : `--${asked.map(([, flag]) => flag).join(' and --')} exclude one another`;
  throw new RequestError('INVALID_ARG', `${wrong}; use one of ${ways}`);
}

function addBlockjobCommand(program: Command, open: () => Session): void {
  program
    .command('blockjob')
    .argument('<domain>', 'name, UUID or id')
    .argument('<disk>', 'its target or the path of its image')
    .description('show or end the block job of a disk')
    .option('--info', 'show the job (this is what is done without an option)')
    .option('--abort', 'end the job; the guest stays on the image it has')
    .option('--pivot', 'end the job; the guest goes on from the copy')
    .action(async (domain: string, disk: string, options: BlockjobOptions) => {
      const how = endOf(options);
      const session = open();
      if (how === null) {
        const job = await session.client.blockJob(domain, disk);
        session.print({ domain, disk, job }, () => jobText(disk, job));
        return;
      }
      await session.client.endBlockJob(domain, disk, how);
      const text = how === 'pivot' ? 'Successfully pivoted' : 'Block job aborted';
      session.print({ domain, disk, done: how }, () => `${text}: ${disk}`);
    });
}

interface BlockjobOptions {
  readonly info?: true;
  readonly abort?: true;
  readonly pivot?: true;
}

/** Null: only show it. */
function endOf({ info, abort, pivot }: BlockjobOptions): 'abort' | 'pivot' | null {
  const asked = [info, abort, pivot].filter((option) => option === true).length;
  if (asked > 1) {
    const wrong = '--info, --abort and --pivot exclude one another; use one of them';
    throw new RequestError('INVALID_ARG', wrong);
  }
  if (pivot === true) return 'pivot';
  return abort === true ? 'abort' : null;
}

const jobNames: ReadonlyMap<string, string> = new Map([
  ['copy', 'Block Copy'],
  ['pull', 'Block Pull'],
  ['commit', 'Block Commit'],
  ['active-commit', 'Active Block Commit'],
  ['backup', 'Backup'],
]);

function jobText(disk: string, job: BlockJobView | null): string {
  if (job === null) return `No current block job for ${disk}`;
  const { type, ready, copiedBytes, totalBytes, bandwidthBytesPerSecond: limit } = job;
  const percent = shownPercent(percentOf(copiedBytes, totalBytes), ready);
  const amount = `${humanBytes(copiedBytes)} of ${humanBytes(totalBytes)}`;
  const limited = limit === 0n ? '' : `, limited to ${humanBytes(limit)}/s`;
  const state = ready ? 'READY' : 'not ready';
  return `${jobNames.get(type) ?? type}: [${String(percent).padStart(3)} %]  ${amount}, ${state}${limited}`;
}
