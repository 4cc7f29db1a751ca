// Disk to `<disk>`. Live XML shows indexes, the whole chain and the mirror; inactive XML what was defined.

import type { Image, StorageSource } from '../block/layer.js';
import type { XmlElement } from '../xml/tree.js';
import { element, textElement } from '../xml/tree.js';
import { printAddress } from './addresses.js';
import type { Disk, DiskMirror } from './disk.js';

export function printDisk(disk: Disk, inactive: boolean): XmlElement {
  const { driver, source } = disk;
  // What is implied by <readonly/> is not said again.
  const snapshot = disk.snapshot === 'no' && disk.readonly ? null : disk.snapshot;
  return element('disk', { type: source?.type ?? 'file', device: disk.device, snapshot }, [
    element('driver', {
      name: 'qemu',
      type: disk.format,
      cache: driver.cache,
      io: driver.io,
      discard: driver.discard,
      detect_zeroes: driver.detectZeroes,
    }),
    source === null ? null : printSource(source, inactive ? null : disk.index),
    disk.backing === null || source === null
      ? null
      : printChain(disk.backing, disk.openEnded === true, inactive),
    disk.mirror === null || inactive ? null : printMirror(disk.mirror),
    element('target', { dev: disk.target, bus: disk.bus }),
    disk.readonly ? element('readonly') : null,
    disk.shareable ? element('shareable') : null,
    textElement('serial', disk.serial),
    disk.bootOrder === null ? null : element('boot', { order: disk.bootOrder }),
    disk.alias === null || inactive ? null : element('alias', { name: disk.alias }),
    printAddress(disk.address),
  ]);
}

export function printSource(source: StorageSource, index: number | null = null): XmlElement {
  switch (source.type) {
    case 'file':
      return element('source', { file: source.path, index });
    case 'block':
      return element('source', { dev: source.path, index });
    case 'network': {
      const { host } = source;
      const name = source.name === '' ? null : source.name;
      const tls = source.tlsCreds === undefined ? null : 'yes';
      return element('source', { protocol: source.protocol, name, tls, index }, [
        host.transport === 'unix'
          ? element('host', { transport: 'unix', socket: host.socket })
          : element('host', { name: host.name, port: host.port }),
      ]);
    }
  }
}

/** Nested from the nearest image down; closed by an empty element unless the last header is to be followed. */
function printChain(
  images: readonly Image[],
  openEnded: boolean,
  inactive: boolean,
): XmlElement | null {
  const [first, ...below] = images;
  if (first === undefined) return openEnded ? null : element('backingStore');
  const index = inactive ? null : first.index;
  return element('backingStore', { type: first.source.type, index }, [
    element('format', { type: first.format }),
    printSource(first.source),
    printChain(below, openEnded, inactive),
  ]);
}

/** virDomainDiskDefFormatMirror: for a copy into a file its path and format are attributes too, as they were at first. */
function printMirror(mirror: DiskMirror): XmlElement {
  const { source, format, index } = mirror.image;
  const compatible = mirror.job === 'copy' && source.type === 'file';
  const attributes = {
    type: source.type,
    file: compatible ? source.path : null,
    format: compatible ? format : null,
    job: mirror.job,
    ready: mirror.ready === 'no' ? null : mirror.ready,
  };
  return element('mirror', attributes, [
    element('format', { type: format }),
    printSource(source, index),
    printChain(mirror.backing, false, false),
  ]);
}
