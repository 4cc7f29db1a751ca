// What `ferryd` is told on its command line and by its environment.

import { resolve } from 'node:path';
import { readFileSync } from 'node:fs';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { defaultRunDir, defaultStateDir } from '../host/run-dir.js';
import type { StorageLimit } from '../image/storage-limits.js';
import { RequestError } from '../std/errors.js';

export interface DaemonOptions {
  readonly runDir: string;
  readonly stateDir: string;
  readonly emulator: string;
  readonly qemuUser: { readonly uid: number; readonly gid: number } | null;
  readonly sandbox: boolean;
  /** Who may use the sockets besides the daemon's own user; null: nobody. */
  readonly socketGid: number | null;
  readonly logLevel: string;
  /** Told of each event of the stream: a line for a shell, an address for a POST; null: nobody. */
  readonly onEvent: string | null;
  readonly webhook: URL | null;
  /** What copies to a storage may write to it in a second, all together. */
  readonly storageLimits: readonly StorageLimit[];
  /** How often a mirror whose destination was missing is tried again. */
  readonly mirrorRetryMs: number;
}

const isRoot = (): boolean => process.getuid?.() === 0;

export function parseOptions(argv: readonly string[], version: string): DaemonOptions {
  const command = new Command('ferryd')
    .description(
      'Runs QEMU guests and moves, mirrors and snapshots their disks. Stays in the foreground; SIGTERM ends it and leaves every guest running.',
    )
    .version(version, '-V, --version')
    .option(
      '--run-dir <dir>',
      'sockets and pid files of this boot (default: FERRY_RUN_DIR, or as the README says)',
    )
    .option(
      '--state-dir <dir>',
      'database, UEFI variables, QEMU logs (FERRY_STATE_DIR)',
      defaultStateDir(),
    )
    .option('--emulator <path>', 'QEMU for domains that name none', '/usr/bin/qemu-system-x86_64')
    .option(
      '--qemu-user <name>',
      'run QEMU as this user (only as root); images must be accessible to it',
    )
    .option(
      '--socket-group <name>',
      'let this group use the sockets: its members may do all that the daemon can',
    )
    .option('--no-sandbox', 'start QEMU without its seccomp filter')
    .option(
      '--mirror-retry <seconds>',
      'how often a mirror whose destination was missing is tried again',
      seconds,
      10,
    )
    .addOption(
      new Option('--log-level <level>').choices(['debug', 'info', 'warn', 'error']).default('info'),
    )
    .addHelpText(
      'after',
      '\nA libvirt client reaches it with: virsh -c "qemu+unix:///system?socket=RUN_DIR/libvirt-sock"',
    );
  withLimitsAndOutlets(command);
  parse(command, argv);
  const given = command.opts<{
    runDir?: string;
    stateDir: string;
    emulator: string;
    qemuUser?: string;
    socketGroup?: string;
    sandbox: boolean;
    logLevel: string;
    mirrorRetry: number;
    storageLimit?: readonly StorageLimit[];
    onEvent?: string;
    webhook?: URL;
  }>();
  const { mirrorRetry, storageLimit: storageLimits = [], ...rest } = given;
  return {
    ...rest,
    onEvent: given.onEvent ?? null,
    webhook: given.webhook ?? null,
    mirrorRetryMs: mirrorRetry * 1000,
    storageLimits,
    // Both go into command lines of processes that outlive us.
    runDir: resolve(given.runDir ?? defaultRunDir()),
    stateDir: resolve(given.stateDir),
    qemuUser: given.qemuUser === undefined ? null : userNamed(given.qemuUser),
    socketGid: given.socketGroup === undefined ? null : groupNamed(given.socketGroup),
  };
}

const withLimitsAndOutlets = (command: Command): Command =>
  command
    .option(
      '--storage-limit <dir=size>',
      'what the copies of all moves to the file system of this directory may write in a second together, such as /mnt/new=50M; may be given several times',
      storageLimit,
    )
    .option('--on-event <command>', 'run by /bin/sh for each event, with its JSON on stdin')
    .option('--webhook <url>', 'POST the JSON of each event there (http or https)', webUrl);

/** Help or version were asked for, and printed. */
export class Shown extends Error {}

function parse(command: Command, argv: readonly string[]): void {
  // What is wrong is told by our caller, as everything that keeps us from starting.
  command.exitOverride().configureOutput({ writeErr: () => undefined });
  try {
    command.parse([...argv], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) throw new Shown();
    const wrong = error.message.replace(/^error: |\.$/g, '');
    throw new RequestError('INVALID_ARG', `start: ${wrong}; see ferryd --help`, { cause: error });
  }
}

function seconds(text: string): number {
  const value = Number(text);
  if (value > 0 && value <= 86_400) return value;
  throw new InvalidArgumentError('It has to be a number of seconds, at most 86400.');
}

function storageLimit(text: string, before: readonly StorageLimit[] = []): readonly StorageLimit[] {
  const [, folder, digits, unit = ''] = /^(\/.*)=([1-9]\d{0,8})([KMG]?)$/.exec(text) ?? [];
  if (folder === undefined || digits === undefined)
    throw new InvalidArgumentError(
      'It has to be an absolute directory and bytes a second, such as /mnt/new=50M.',
    );
  const bytesPerSecond = BigInt(digits) << BigInt(10 * ('KMG'.indexOf(unit || ' ') + 1));
  return [...before, { folder, bytesPerSecond }];
}

function webUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url !== null && /^https?:$/.test(url.protocol)) return url;
  throw new InvalidArgumentError('It has to be an address such as https://host/path.');
}

/** passwd(5); Node has no getpwnam. */
function userNamed(name: string): { readonly uid: number; readonly gid: number } {
  if (!isRoot())
    throw new RequestError(
      'CONFIG_UNSUPPORTED',
      `--qemu-user ${name}: only root can start QEMU as another user`,
    );
  const fields = fieldsOf('/etc/passwd', name);
  if (fields === undefined)
    throw new RequestError('CONFIG_UNSUPPORTED', `--qemu-user ${name}: there is no such user`);
  return { uid: Number(fields[2]), gid: Number(fields[3]) };
}

/** group(5). */
function groupNamed(name: string): number {
  const fields = fieldsOf('/etc/group', name);
  if (fields === undefined)
    throw new RequestError(
      'CONFIG_UNSUPPORTED',
      `--socket-group ${name}: there is no such group in /etc/group; make it: groupadd --system ${name}`,
    );
  return Number(fields[2]);
}

const fieldsOf = (file: string, name: string): readonly string[] | undefined =>
  readFileSync(file, 'utf8')
    .split('\n')
    .find((line) => line.startsWith(`${name}:`))
    ?.split(':');
