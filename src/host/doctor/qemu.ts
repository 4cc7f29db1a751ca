// Looks at a QEMU by `query-*` commands only: what each disk has open, and which jobs write elsewhere.

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ImageInfo } from '../../qapi/replies.js';
import type { Job, Monitor } from '../../qmp/monitor.js';
import { queryJobs } from '../../qmp/monitor.js';
import { BusyError, messageOf } from '../../std/errors.js';
import { within } from '../../std/deadline.js';
import { identify } from '../process.js';
import type { JobFacts, MonitorFacts, QemuDisk } from './facts.js';

const LOOK_TIMEOUT_MS = 5000;

/** Nodes that a job puts above the image that a disk has. */
const filters: ReadonlySet<string> = new Set(['mirror_top', 'commit_top']);

/** `ask` connects, gives the monitor to its body, and lets go of it. */
export type AskMonitor = <T>(body: (monitor: Monitor) => Promise<T>) => Promise<T>;

export async function lookAtMonitor(ask: AskMonitor): Promise<MonitorFacts> {
  try {
    return await within(ask(query), LOOK_TIMEOUT_MS, 'QEMU answers');
  } catch (error) {
    const state = error instanceof BusyError ? 'busy' : 'silent';
    return { state, problem: messageOf(error) };
  }
}

async function query(monitor: Monitor): Promise<MonitorFacts> {
  const { status } = await monitor.execute('query-status', {});
  const devices = await monitor.execute('query-block', {});
  const nodes = await monitor.execute('query-named-block-nodes', { flat: true });
  const disks = devices.flatMap(({ qdev, device, inserted }): readonly QemuDisk[] =>
    inserted === undefined
      ? []
      : [{ device: aliasOf(qdev ?? device), images: imagesIn(inserted.image) }],
  );
  const active = new Set(disks.map(({ images }) => images[0]?.path));
  const written = nodes
    .filter(({ drv, ro }) => (drv === 'qcow2' || drv === 'raw') && !ro)
    .map(({ image }) => plainPath(image.filename))
    .filter((path) => !active.has(path));
  const jobs = [...(await queryJobs(monitor))].map(([id, job]) => jobFacts(id, job));
  return { state: 'answered', runState: status, disks, alsoWritten: [...new Set(written)], jobs };
}

function jobFacts(id: string, { info, block }: Job): JobFacts {
  const io = block?.['io-status'] ?? 'ok';
  const paused = io === 'ok' ? null : `an error of its target (io-status ${io})`;
  const ended = info.status === 'concluded' ? 'it has ended' : null;
  return { id, isReady: block?.ready === true, problem: info.error ?? paused ?? ended };
}

/** `/machine/peripheral/virtio-disk0/virtio-backend` belongs to the device that libvirt calls `virtio-disk0`. */
const aliasOf = (qdev: string): string => /\/peripheral\/([^/]+)/.exec(qdev)?.[1] ?? qdev;

function imagesIn(top: ImageInfo): QemuDisk['images'] {
  const below = top['backing-image'];
  const rest = below === undefined ? [] : imagesIn(below);
  return filters.has(top.format)
    ? rest
    : [{ path: plainPath(top.filename), format: top.format }, ...rest];
}

/** QEMU writes `json:{…}` for an image whose options differ from its header. */
function plainPath(filename: string): string {
  if (!filename.startsWith('json:')) return filename;
  try {
    const options: unknown = JSON.parse(filename.slice('json:'.length));
    return deepFilename(options) ?? filename;
  } catch {
    return filename;
  }
}

function deepFilename(options: unknown): string | null {
  if (typeof options !== 'object' || options === null) return null;
  if ('filename' in options && typeof options.filename === 'string') return options.filename;
  if ('file.filename' in options && typeof options['file.filename'] === 'string')
    return options['file.filename'];
  return 'file' in options ? deepFilename(options.file) : null;
}

export interface FoundQemu {
  readonly uuid: string;
  readonly name: string;
  readonly pid: number;
}

/** Every QEMU that a pid file of the run directory names and that is alive. */
export function qemusIn(runDir: string): readonly FoundQemu[] {
  const folder = join(runDir, 'qemu');
  return namesIn(folder)
    .filter((name) => name.endsWith('.pid'))
    .flatMap((name) => {
      const uuid = name.slice(0, -'.pid'.length);
      const found = identify(join(folder, name), join(folder, `${uuid}.qmp`));
      return found === null ? [] : [{ uuid, name: guestName(found.pid) ?? uuid, pid: found.pid }];
    });
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder).toSorted();
  } catch {
    return [];
  }
}

/** The domain's name on the command line of its QEMU: `-name guest=NAME,…`, with commas doubled. */
export function guestName(pid: number): string | null {
  try {
    const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
    const name = /\0-name\0guest=((?:[^,\0]|,,)*)/.exec(line)?.[1];
    return name === undefined ? null : name.replaceAll(',,', ',');
  } catch {
    return null;
  }
}
