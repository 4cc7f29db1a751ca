// The move of disks: planned for a person to look at, applied, or both in one.

import { resolve } from 'node:path';

import type { Command } from 'commander';
import { InvalidArgumentError, Option } from 'commander';

import type { VerifyMode } from '../block/copy.js';
import { verifyModes } from '../block/copy.js';
import type { Format } from '../block/layer.js';
import type { MoveForm } from '../domain/move-form.js';
import type { MoveStrategy } from '../block/destination.js';
import { absoluteDestination, moveStrategies } from '../block/destination.js';
import type { DiskView, MoveRequest, OperationView } from '../host/ferry-host.js';
import { defaultRotateBytes } from '../host/ferry-host.js';
import type { PivotWhen } from '../domain/pivot-when.js';
import { NotFoundError } from '../std/errors.js';
import { findDisk } from './domain-commands.js';
import { movePlanText } from './move-plan-text.js';
import type { ProgressKind } from './operation-commands.js';
import { follow, printEnd, progressOption } from './operation-commands.js';
import { beganText, movedText } from './operation-text.js';
import { pivotOption } from './pivot-commands.js';
import type { Session } from './session.js';
import type { SourceOptions } from './source-commands.js';
import { fateOf, windowTime, withSource } from './source-commands.js';

export function addMoveCommands(program: Command, open: () => Session): void {
  withRequest(program.command('move'))
    .description('move disks to another storage, while their guest runs or while it is shut off')
    .option('--detach', 'do not wait: print the operation and return')
    .addOption(progressOption())
    .addHelpText(
      'after',
      `
Ctrl-C asks whether the move goes on in the daemon or is cancelled; a second one, or one without a terminal, ends
the waiting only.
A domain that is shut off cannot be started until its move has ended or is cancelled.

Examples:
  ferry move vm1 vda vdb --to /mnt/new
  ferry move vm1 vda --to /mnt/new --detach && ferry ops
  ferry move vm1 vda --to /mnt/new --pivot at 03:00      copied now, switched at night; 'ferry pivot N': at once
  ferry move vm1 vda --to /mnt/new --pivot when 'lag<4M for 30s'
  ferry move vm1 vda --to /mnt/new --undo-window 2h      'ferry undo N' switches back, until two hours after the switch
  ferry move vm1 vda --to /mnt/new --keep-source 24h     the old images go a day after the switch, if that is safe
  ferry move vm1 vda --to /mnt/new --progress=json | jq .percent
  ferry move vm1 vda --to /mnt/new/web.qcow2 --flatten   one image, under that name
  ferry move vm1 vda --to /mnt/new --share-base          the golden image is there already`,
    )
    .action(
      async (domain: string, disks: readonly string[], options: RequestOptions & FollowOptions) => {
        const session = open();
        const { before, request } = await requestOf(session, domain, disks, options);
        const started = await session.client.startMove(domain, request);
        await followMove(session, { ...request, started, domain, before }, options);
      },
    );

  const plan = program
    .command('plan')
    .description('show what a move would do and cost, and do nothing');
  withRequest(plan.command('move'))
    .description('chains before and after, bytes, room, time, pauses, risks, the way back')
    .addHelpText(
      'after',
      `
A guest that runs is watched for a second; both storages are read and written for a moment to know their speed.
'ferry apply HASH' does what is shown, if nothing has changed since. Plans are kept while ferryd runs.

Examples:
  ferry plan move vm1 vda vdb --to /mnt/new
  ferry apply $(ferry --json plan move vm1 vda --to /mnt/new | jq -r .hash)`,
    )
    .action(async (domain: string, disks: readonly string[], options: RequestOptions) => {
      const session = open();
      const { request } = await requestOf(session, domain, disks, options);
      const made = await session.client.planMove(domain, request);
      session.print(made, () => movePlanText(made, session.paint));
    });

  program
    .command('apply')
    .argument('<hash>', "of a plan, as 'ferry plan' printed it")
    .description('do what was planned; refused if the world has changed, and says what did')
    .option('--detach', 'do not wait: print the operation and return')
    .addOption(progressOption())
    .action(async (hash: string, options: FollowOptions) => {
      const session = open();
      const { domainName: domain, to, disks: planned } = await session.client.plan(hash);
      const before = await chainOrNone(session, domain);
      const started = await session.client.applyPlan(hash);
      const disks = planned.map(({ target }) => target);
      await followMove(session, { started, domain, disks, to, before }, options);
    });
}

interface RequestOptions extends SourceOptions {
  readonly to: string;
  readonly strategy: MoveStrategy;
  readonly tlsCreds?: string;
  readonly rotate?: bigint | 'off';
  readonly bandwidth?: bigint;
  readonly verify: VerifyMode;
  readonly pivot: PivotWhen;
  readonly quiesce?: boolean;
  readonly trim?: boolean;
  readonly overlayDir?: string;
  readonly shareBase?: boolean;
  readonly flatten?: boolean;
  readonly format?: Format;
  readonly clusterSize?: bigint;
  readonly undoWindow?: number;
}

const withRequest = (command: Command): Command =>
  withSource(command)
    .argument('<domain>', 'name, UUID or id')
    .argument('<disk...>', 'disks to move together: their targets, or the paths of their images')
    .requiredOption(
      '--to <place>',
      'directory on the other storage, where file names are kept; or, for one disk: the new file of its top image, block:/dev/…, nbd://HOST:PORT/EXPORT, nbd+unix:///EXPORT?socket=PATH, with TLS nbds://…',
    )
    .option(
      '--overlay-dir <dir>',
      'directory for what the guest writes until the switch, when its own storage has no room',
    )
    .option(
      '--share-base',
      'compare the images below the top one that are at the destination already, and do not copy those',
    )
    .option('--flatten', 'make one image of the chain')
    .addOption(
      new Option(
        '--format <format>',
        'of the top image at the destination (default: as it is)',
      ).choices(['raw', 'qcow2']),
    )
    .option('--cluster-size <size>', 'of the top image at the destination (64K to 2M)', clusterSize)
    .addOption(
      new Option(
        '--strategy <how>',
        'overlay: what is frozen is copied as files, and a death of QEMU costs what changed; full: QEMU mirrors all of the disk into one image, and starts over after such a death; auto: overlay where it can be made',
      )
        .choices(moveStrategies)
        .default('auto'),
    )
    .option(
      '--tls-creds <dir>',
      'for nbds://: directory with ca-cert.pem, and client-cert.pem and client-key.pem if the server asks for them',
    )
    .option(
      '--rotate <size>',
      'size of the live layer above which a fresh one goes on top of it, so that a crash costs no more (256M, 4G, off; default: 1G)',
      rotateSize,
    )
    .option(
      '--bandwidth <size>',
      'what the copies of its images may read in a second, all together and with their verification (512K, 10M, 1G; default: no limit)',
      bandwidth,
    )
    .addOption(
      new Option(
        '--verify <how much>',
        'what is read back at the destination, past the page cache, and compared before the switch: all, the ends and one piece in twenty, or nothing',
      )
        .choices(verifyModes)
        .default('full'),
    )
    .addOption(pivotOption())
    .option(
      '--undo-window <how long>',
      "keep the old side exact for so long after the switch (30m, 2h), so that 'ferry undo N' switches back in one pause; writes go to both sides until then",
      windowTime,
    )
    .option('--quiesce', 'let the agent of the guest freeze its file systems for the switch')
    .option(
      '--trim',
      "let the agent of the guest discard, at the end, what its file systems do not use (of disks with discard='unmap')",
    );

async function requestOf(
  session: Session,
  domain: string,
  disks: readonly string[],
  options: RequestOptions,
): Promise<{ readonly before: readonly DiskView[]; readonly request: MoveRequest }> {
  const { to, strategy, tlsCreds, rotate, bandwidth: limit, verify, pivot } = options;
  const { quiesce = false, trim = false } = options;
  const fate = fateOf(options);
  const before = await session.client.chain(domain);
  return {
    before,
    request: {
      ...formOf(options),
      disks: disks.map((disk) => findDisk({ name: domain }, before, disk).target),
      to: absoluteDestination(to),
      strategy,
      tlsCreds: tlsCreds === undefined ? null : resolve(tlsCreds),
      rotateBytes: rotate === 'off' ? null : (rotate ?? defaultRotateBytes),
      bytesPerSecond: limit ?? null,
      verify,
      pivot,
      quiesce,
      trim,
      ...fate,
      undoSeconds: options.undoWindow ?? null,
    },
  };
}

const formOf = ({
  overlayDir,
  shareBase = false,
  flatten = false,
  format,
  clusterSize: cluster,
}: RequestOptions): MoveForm => ({
  overlayDir: overlayDir === undefined ? null : resolve(overlayDir),
  shareBase,
  flatten,
  format: format ?? null,
  clusterSizeBytes: cluster ?? null,
});

interface FollowOptions {
  readonly detach?: true;
  readonly progress: ProgressKind;
}

interface Begun {
  readonly started: OperationView;
  readonly domain: string;
  readonly disks: readonly string[];
  readonly to: string;
  readonly before: readonly DiskView[];
}

async function followMove(
  session: Session,
  { started, domain, disks, to, before }: Begun,
  { detach, progress }: FollowOptions,
): Promise<void> {
  const text = beganText(started, disks, to);
  if (detach === true) {
    const isHeld = (started.progress?.pivot ?? 'auto') !== 'auto';
    const held = isHeld ? `\n  let it switch, once in step: ferry pivot ${started.id}` : '';
    session.print(started, () => `${text}\n  wait for it: ferry ops wait ${started.id}${held}`);
    return;
  }
  const ended = await follow(session, started.id, progress, text);
  if (ended === null) return;
  const after = await chainOrNone(session, domain);
  // Asked once more: how much older the source is by now.
  const now = await session.client.operation(started.id).catch(() => ended);
  printEnd(session, now, progress, () => movedText(now, disks, before, after));
}

/** None when the domain is gone: a transient one that ended just after its move. */
async function chainOrNone(session: Session, domain: string): Promise<readonly DiskView[]> {
  try {
    return await session.client.chain(domain);
  } catch (error) {
    if (isNoDomain(error)) return [];
    throw error;
  }
}

const isNoDomain = (error: unknown): boolean =>
  error instanceof NotFoundError ||
  (error instanceof Error && 'code' in error && error.code === 'NO_DOMAIN');

/** A size as qemu-img writes it: powers of 1024. 0: it is none. */
function sizeBytes(text: string): bigint {
  const [, digits, unit] = /^(\d{1,6})([KMGT])$/.exec(text) ?? [];
  return BigInt(digits ?? 0) << BigInt({ K: 10, M: 20, G: 30, T: 40 }[unit ?? 'M'] ?? 20);
}

export function bandwidth(text: string): bigint {
  const bytes = /^[1-9]\d{0,15}$/.test(text) ? BigInt(text) : sizeBytes(text);
  if (bytes > 0n) return bytes;
  throw new InvalidArgumentError('It has to be bytes a second such as 512K, 10M or 1G.');
}

function clusterSize(text: string): bigint {
  const bytes = sizeBytes(text.toUpperCase());
  if (bytes > 0n) return bytes;
  throw new InvalidArgumentError('It has to be a size such as 64K, 512K or 2M.');
}

/** Never null: commander takes that for an empty text. */
function rotateSize(text: string): bigint | 'off' {
  if (text === 'off') return 'off';
  const bytes = /[MGT]$/.test(text) ? sizeBytes(text) : 0n;
  if (bytes > 0n) return bytes;
  throw new InvalidArgumentError('It has to be a size such as 256M or 4G, or off.');
}
