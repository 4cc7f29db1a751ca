// `<disk>` to a Disk, and the smaller relatives of it that clients send: the destination of a block copy.

import type { Format, Image, NbdHost, StorageSource } from '../block/layer.js';
import { RequestError } from '../std/errors.js';
import type { XmlElement } from '../xml/tree.js';
import { attributeOf, childNamed, childrenNamed } from '../xml/tree.js';
import { readAddress } from './addresses.js';
import type { Disk, DiskBus } from './disk.js';
import { checkGrammar, diskGrammar, unsupported } from './grammar.js';
import {
  absolutePath,
  childText,
  configError,
  integerOf,
  neededAttribute,
  wordOf,
  xmlError,
} from './values.js';

const formats = ['raw', 'qcow2'] as const satisfies readonly Format[];
const sourceTypes = ['file', 'block', 'network'] as const;
const cacheModes = ['none', 'writethrough', 'writeback', 'directsync', 'unsafe'] as const;
export const snapshotModes = ['no', 'internal', 'external', 'manual'] as const;
const nbdPort = 10809;
/** What an XML says of TLS is only that there is some; libvirt's default of `nbd_tls_x509_cert_dir` (qemu.conf). */
const defaultTlsCreds = '/etc/pki/libvirt-nbd';

/** Which bus a disk name speaks of when `<target bus=>` does not (virDomainDiskDefParseXML). */
const busOfPrefix: Readonly<Record<string, DiskBus>> = { vd: 'virtio', hd: 'ide' };

/** Reads one `<disk>`; addresses and aliases are assigned later, `<mirror>` and `index` are libvirt's output only. */
export function readDisk(element: XmlElement): Disk {
  checkGrammar(element, diskGrammar);
  const device = wordOf(element, 'device', ['disk', 'cdrom']) ?? 'disk';
  const type = wordOf(element, 'type', sourceTypes) ?? 'file';
  const source = readSource(childNamed(element, 'source'), type, device);
  const { target, bus } = readTarget(element, source);
  if (source === null && device === 'disk')
    throw new RequestError('NO_SOURCE', target, { from: 'domain' });
  const driver = childNamed(element, 'driver');
  const name = attributeOf(driver, 'name');
  if (name !== null && name !== 'qemu') {
    throw configError(`unsupported driver name '${name}' for disk '${target}'`);
  }
  const readonly = device === 'cdrom' || childNamed(element, 'readonly') !== null;
  return {
    device,
    target,
    bus,
    source,
    index: null,
    format: wordOf(driver, 'type', formats) ?? 'raw',
    driver: {
      cache: orNull(wordOf(driver, 'cache', [...cacheModes, 'default'])),
      io: orNull(wordOf(driver, 'io', ['native', 'threads', 'io_uring', 'default'])),
      discard: wordOf(driver, 'discard', ['ignore', 'unmap']),
      detectZeroes: wordOf(driver, 'detect_zeroes', ['off', 'on', 'unmap']),
    },
    ...readChain(element),
    mirror: null,
    readonly,
    shareable: childNamed(element, 'shareable') !== null,
    serial: childText(element, 'serial'),
    bootOrder: readBootOrder(element),
    // What nobody writes needs no new layer (virDomainDiskDefPostParse).
    snapshot: wordOf(element, 'snapshot', snapshotModes) ?? (readonly ? 'no' : null),
    address: readAddress(element),
    alias: null,
  };
}

const orNull = <T extends string>(word: T | null): Exclude<T, 'default'> | null =>
  word === null || word === 'default' ? null : (word as Exclude<T, 'default'>); // just excluded

/** `<target dev= bus=>`; the bus follows from the name when it is not given. */
function readTarget(
  disk: XmlElement,
  source: StorageSource | null,
): { target: string; bus: DiskBus } {
  const element = childNamed(disk, 'target');
  const target = attributeOf(element, 'dev');
  if (element === null || target === null) {
    const of = source === null || source.type === 'network' ? '' : ` ${source.path}`;
    throw xmlError(`missing target information for device${of}`);
  }
  if (!/^(?:xvd|[hsvfu]d|ubd)[a-z]{1,3}$/.test(target))
    throw xmlError(`Unknown disk name '${target}' and no address specified`);
  const bus = wordOf(element, 'bus', ['virtio', 'ide', 'sata']) ?? busOfPrefix[target.slice(0, 2)];
  if (bus === undefined)
    throw unsupported(
      `the bus that disk name '${target}' stands for`,
      'say <target bus=>: virtio, ide or sata',
    );
  return { target, bus };
}

/** `<source>` of a disk; null for an empty drive. */
export function readSource(
  element: XmlElement | null,
  type: (typeof sourceTypes)[number],
  what: string,
): StorageSource | null {
  if (element === null) return null;
  if (type === 'network') return readNetworkSource(element);
  const path = attributeOf(element, type === 'file' ? 'file' : 'dev');
  if (path === null || path === '') return null;
  return { type, path: absolutePath(path, `source path of a ${what}`) };
}

function readNetworkSource(element: XmlElement): StorageSource {
  wordOf(element, 'protocol', ['nbd']);
  neededAttribute(element, 'protocol');
  const hosts = childrenNamed(element, 'host');
  const host = hosts[0];
  if (host === undefined) throw xmlError('missing host of a network disk');
  if (hosts.length > 1) throw unsupported(`more than one <host> of an NBD source`, 'give one');
  return {
    type: 'network',
    protocol: 'nbd',
    name: attributeOf(element, 'name') ?? '',
    host: readHost(host),
    ...(wordOf(element, 'tls', ['yes', 'no']) === 'yes' ? { tlsCreds: defaultTlsCreds } : {}),
  };
}

function readHost(host: XmlElement): NbdHost {
  if (wordOf(host, 'transport', ['tcp', 'unix']) === 'unix') {
    return {
      transport: 'unix',
      socket: absolutePath(neededAttribute(host, 'socket'), 'socket of an NBD source'),
    };
  }
  return {
    transport: 'tcp',
    name: neededAttribute(host, 'name'),
    port: integerOf(host, 'port') ?? nbdPort,
  };
}

/** The chain that `<backingStore>` spells out. An empty one closes it; without that the last header is followed. */
function readChain(disk: XmlElement): { backing: readonly Image[] | null; openEnded?: true } {
  let at = childNamed(disk, 'backingStore');
  if (at === null) return { backing: null };
  const backing: Image[] = [];
  while (at !== null) {
    if (attributeOf(at, 'type') === null && childNamed(at, 'source') === null) return { backing };
    backing.push(readImage(at, 'backing store'));
    at = childNamed(at, 'backingStore');
  }
  return { backing, openEnded: true };
}

/** An image with `type=`, `<format type=>` and `<source>`, as in `<backingStore>` and `<mirror>`. */
export function readImage(element: XmlElement, what: string): Image {
  const type = wordOf(element, 'type', sourceTypes) ?? 'file';
  const source = readSource(childNamed(element, 'source'), type, what);
  const format = wordOf(childNamed(element, 'format'), 'type', formats);
  if (source === null) throw xmlError(`missing disk ${what} source`);
  if (format === null) throw xmlError(`missing disk ${what} format`);
  return { source, format, index: null };
}

export function readBootOrder(device: XmlElement): number | null {
  const order = integerOf(childNamed(device, 'boot'), 'order');
  if (order === 0)
    throw xmlError(
      `Invalid value for attribute 'order' in element 'boot': '0'. Expected non-zero value`,
    );
  return order;
}
