// Gathers what the doctor judges, in the daemon or without one: it only reads, and of QEMU it only asks.

import { join } from 'node:path';
import type { Image } from '../../block/layer.js';
import { localPath } from '../../block/layer.js';
import { imagesOf } from '../../domain/disk.js';
import type { DomainRecord, ImageRole } from '../../domain/record.js';
import type { Older } from '../../domain/source-fate.js';
import type { ImageStore } from '../../image/store.js';
import type { Journal, OperationRecord } from '../../journal/journal.js';
import { NotFoundError } from '../../std/errors.js';
import { isAlive } from '../process.js';
import type {
  DaemonFacts,
  DoctorFacts,
  DomainFacts,
  JournalFacts,
  QemuFacts,
  XmlFacts,
} from './facts.js';
import type { Wanted } from './images.js';
import { lookAtImages } from './images.js';
import type { AskMonitor, FoundQemu } from './qemu.js';
import { guestName, lookAtMonitor, qemusIn } from './qemu.js';

export interface Around {
  readonly lookedBy: DoctorFacts['lookedBy'];
  readonly daemon: DaemonFacts;
  readonly journalFacts: JournalFacts;
  /** Null unless it was read. */
  readonly journal: Journal | null;
  readonly runDir: string;
  readonly stateDir: string;
  readonly images: ImageStore;
  readonly nowSeconds: number;
  /** Numbers of operations that the daemon is at. */
  readonly running: ReadonlySet<number>;
  readonly monitorOf: (uuid: string, socket: string) => AskMonitor;
  readonly xml: readonly XmlFacts[];
  /** Of an image that is stale. */
  readonly olderOf: (role: ImageRole) => Older;
}

/** Everything about the domain `name` (name, UUID or id), or about all. */
export async function lookAround(around: Around, name: string | null): Promise<DoctorFacts> {
  const { journal } = around;
  const records = (await journal?.domains()) ?? [];
  const open = (await journal?.openOperations()) ?? [];
  const roles = (await journal?.roles()) ?? [];
  const found = qemusIn(around.runDir);
  const isWanted = wantedBy(name, records);
  const strangers = found.filter(
    (qemu) => !records.some(({ uuid }) => uuid === qemu.uuid) && isWanted(qemu),
  );
  const wanted = records.filter((record) => isWanted(record));
  const orphans = open.filter(
    ({ domain, domainName }) =>
      !records.some(({ uuid }) => uuid === domain) && isWanted({ uuid: domain, name: domainName }),
  );
  const seen = wanted.length + strangers.length + orphans.length + around.xml.length;
  if (name !== null && seen === 0 && journal !== null) throw noSuchDomain(name);
  const domains = await Promise.all(
    wanted.map(async (record): Promise<DomainFacts> => {
      const { uuid } = record;
      const mine = roles.filter(({ domain }) => domain === uuid);
      const stale = mine.filter(({ role }) => role === 'stale');
      return {
        record,
        qemu: await qemuOf(around, record, found),
        open: open.filter(({ domain }) => domain === uuid),
        roles: mine,
        older: new Map(stale.map((role) => [role.path, around.olderOf(role)])),
      };
    }),
  );
  const { nowSeconds, lookedBy, daemon, runDir, stateDir, running, xml } = around;
  return {
    nowSeconds,
    asked: name,
    lookedBy,
    daemon,
    journal: around.journalFacts,
    runDir,
    stateDir,
    domains,
    running,
    orphans,
    strangers: await Promise.all(strangers.map((qemu) => asked(around, qemu, true))),
    images: await lookAtImages(around.images, [
      ...domains.flatMap(imagesToSee),
      ...orphans.flatMap((operation) => overlaysOf(operation, true)),
      ...xml.flatMap(({ disks }) => disks.flatMap(xmlImages)),
    ]),
    xml,
  };
}

const noSuchDomain = (name: string): NotFoundError =>
  new NotFoundError('NO_DOMAIN', `no domain with matching name '${name}'`, {
    next: ['ferry doctor'],
  });

/** A name, a UUID, or the id of a domain that the journal calls running. */
function wantedBy(name: string | null, records: readonly DomainRecord[]) {
  const byId = records.find(({ live }) => live !== null && String(live.id) === name);
  return (one: { readonly uuid: string; readonly name: string }): boolean =>
    name === null ||
    one.name === name ||
    one.uuid === name.toLowerCase() ||
    one.uuid === byId?.uuid;
}

async function qemuOf(
  around: Around,
  { uuid, name, live }: DomainRecord,
  found: readonly FoundQemu[],
): Promise<QemuFacts | null> {
  const here = found.find((qemu) => qemu.uuid === uuid);
  if (here !== undefined) return await asked(around, { ...here, name }, true);
  // With another run directory, or one that was emptied, the process that the journal knows may still be there.
  if (live === null || live.pid === 0 || !isAlive(live)) return null;
  return await asked(around, { uuid, name: guestName(live.pid) ?? name, pid: live.pid }, false);
}

async function asked(around: Around, qemu: FoundQemu, inRunDir: boolean): Promise<QemuFacts> {
  const socket = join(around.runDir, 'qemu', `${qemu.uuid}.qmp`);
  const monitor = inRunDir
    ? await lookAtMonitor(around.monitorOf(qemu.uuid, socket))
    : { state: 'silent' as const, problem: `its monitor is not in ${around.runDir}` };
  return { ...qemu, inRunDir, monitor };
}

function imagesToSee(domain: DomainFacts): readonly Wanted[] {
  const { record, open, roles } = domain;
  const definitions = [record.live?.definition, record.persistent].flatMap((one) => one ?? []);
  const disks = definitions.flatMap((definition) => definition.disks);
  const known = [
    ...disks.flatMap(imagesOf),
    ...disks.flatMap(({ mirror }) => (mirror === null ? [] : [mirror.image, ...mirror.backing])),
    ...record.chains.flatMap(({ images }) => images),
  ];
  return [
    ...known.flatMap(wantedImage),
    ...open.flatMap((operation) => overlaysOf(operation, domain.qemu === null)),
    ...roles.flatMap(wantedRole),
  ];
}

function wantedImage({ source, format }: Image): readonly Wanted[] {
  const path = localPath(source);
  return path === null ? [] : [{ path, format, needsEmptiness: false }];
}

const wantedRole = ({ path, live }: ImageRole): readonly Wanted[] =>
  [path, live]
    .filter((one) => one.startsWith('/'))
    .map((one) => ({ path: one, format: null, needsEmptiness: false }));

/** The layers of a snapshot that may have been under way: without QEMU, what is in them tells whether it was. */
const overlaysOf = ({ plan }: OperationRecord, needsEmptiness: boolean): readonly Wanted[] =>
  plan.steps.flatMap((step) =>
    step.kind === 'snapshot'
      ? step.disks.map(({ overlayPath: path }) => ({
          path,
          format: 'qcow2' as const,
          needsEmptiness,
        }))
      : [],
  );

const xmlImages = (disk: XmlFacts['disks'][number]): readonly Wanted[] =>
  [disk.path, ...disk.namedBy].map((path) => ({ path, format: null, needsEmptiness: false }));
