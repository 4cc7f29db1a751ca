// The devices of `<devices>` other than disks, read one kind at a time. `checkGrammar` ran before: what is here is known.

import type { XmlElement } from '../xml/tree.js';
import { attributeOf, childNamed, childrenNamed, textOf } from '../xml/tree.js';
import { readAddress } from './addresses.js';
import type {
  Audio,
  Balloon,
  Channel,
  CharLog,
  CharSource,
  Console,
  Controller,
  DeviceInfo,
  Graphics,
  Input,
  Interface,
  Rng,
  Serial,
  Video,
} from './devices.js';
import { unsupported } from './grammar.js';
import { readBootOrder } from './parse-disk.js';
import {
  absolutePath,
  configError,
  integerOf,
  neededAttribute,
  wordOf,
  xmlError,
} from './values.js';

const onOff = ['on', 'off'] as const;

const info = (device: XmlElement): DeviceInfo => ({ alias: null, address: readAddress(device) });

/** Models per type of controller; `null` in the XML is filled in by `defaults.ts`. */
export const controllerModels = {
  usb: ['piix3-uhci', 'qemu-xhci', 'ich9-ehci1', 'ich9-uhci1', 'ich9-uhci2', 'ich9-uhci3', 'none'],
  pci: ['pci-root', 'pcie-root', 'pcie-root-port'],
  ide: [],
  sata: [],
  'virtio-serial': [],
} as const satisfies Record<Controller['type'], readonly string[]>;

/** A controller whose index is not given gets the next one of its type. */
export function readControllers(devices: XmlElement): readonly Controller[] {
  const read: Controller[] = [];
  for (const device of childrenNamed(devices, 'controller')) {
    const type = wordOf(device, 'type', ['usb', 'pci', 'ide', 'sata', 'virtio-serial']);
    if (type === null)
      throw xmlError(`missing attribute 'type' of <controller> (line ${device.position.line})`);
    const companion = childNamed(device, 'master') !== null;
    const used = read.filter((other) => other.type === type).map((other) => other.index);
    const next = used.length === 0 ? 0 : Math.max(...used) + (companion ? 0 : 1);
    const index = integerOf(device, 'index') ?? next;
    if (used.includes(index) && !companion)
      throw xmlError(`Multiple '${type}' controllers with index '${index}'`);
    read.push(readController(device, type, index));
  }
  return read;
}

function readController(device: XmlElement, type: Controller['type'], index: number): Controller {
  const models: readonly string[] = controllerModels[type];
  const target = childNamed(device, 'target');
  const master = childNamed(device, 'master');
  if (master !== null) neededAttribute(master, 'startport');
  const port = attributeOf(target, 'port');
  if (port !== null && !/^(?:0[xX][0-9a-fA-F]{1,2}|\d{1,3})$/.test(port)) {
    throw xmlError(`Invalid target port '${port}' in PCI controller`);
  }
  return {
    type,
    index,
    model: wordOf(device, 'model', models),
    ports: integerOf(device, 'ports'),
    vectors: integerOf(device, 'vectors'),
    masterStartPort: integerOf(master, 'startport'),
    modelName: wordOf(childNamed(device, 'model'), 'name', ['pcie-root-port']),
    chassis: integerOf(target, 'chassis'),
    port: port === null ? null : Number(port),
    ...info(device),
  };
}

export function readInterface(device: XmlElement, newMac: () => string): Interface {
  const type = wordOf(device, 'type', ['user', 'ethernet']);
  if (type === null)
    throw xmlError(`missing attribute 'type' of <interface> (line ${device.position.line})`);
  const target = childNamed(device, 'target');
  const targetDev = attributeOf(target, 'dev');
  if (targetDev !== null && !/^[^\s/]{1,15}$/.test(targetDev))
    throw configError(`'${targetDev}' is not a name of a network device`);
  if (type === 'ethernet' && targetDev === null) {
    throw unsupported(
      '<interface type="ethernet"> without <target dev=>',
      'name a tap device that exists',
    );
  }
  return {
    type,
    mac: readMac(attributeOf(childNamed(device, 'mac'), 'address') ?? newMac()),
    // libvirt makes the device name of a user network itself.
    targetDev: type === 'user' ? null : targetDev,
    targetManaged: wordOf(target, 'managed', ['yes', 'no']),
    model:
      wordOf(childNamed(device, 'model'), 'type', ['virtio', 'e1000', 'e1000e', 'rtl8139']) ??
      'rtl8139',
    link: wordOf(childNamed(device, 'link'), 'state', ['up']),
    bootOrder: readBootOrder(device),
    ...info(device),
  };
}

function readMac(mac: string): string {
  if (!/^[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}$/.test(mac))
    throw xmlError(`unable to parse mac address '${mac}'`);
  if (Number.parseInt(mac.slice(0, 2), 16) % 2 === 1) {
    throw xmlError(`expected unicast mac address, found multicast '${mac}'`);
  }
  return mac.toLowerCase();
}

function readCharSource(device: XmlElement): CharSource {
  const type = wordOf(device, 'type', ['pty', 'file', 'unix', 'null']);
  if (type === null)
    throw xmlError(`missing attribute 'type' of <${device.name}> (line ${device.position.line})`);
  const source = childNamed(device, 'source');
  const given = attributeOf(source, 'path');
  const path =
    given === null || given === '' ? null : absolutePath(given, `path of a <${device.name}>`);
  switch (type) {
    // The kernel names a pty when it is opened.
    case 'pty':
      return { type, path: null };
    case 'null':
      return { type };
    case 'file':
      if (path === null) throw xmlError('Missing source path attribute for char device');
      return { type, path, append: wordOf(source, 'append', onOff) };
    case 'unix':
      if (path === null && device.name !== 'channel')
        throw xmlError('Missing source path attribute for char device');
      return { type, mode: wordOf(source, 'mode', ['bind', 'connect']) ?? 'connect', path };
  }
}

function readLog(device: XmlElement): CharLog | null {
  const log = childNamed(device, 'log');
  if (log === null) return null;
  return {
    file: absolutePath(neededAttribute(log, 'file'), 'log file'),
    append: wordOf(log, 'append', onOff),
  };
}

export function readSerial(device: XmlElement, next: number): Serial {
  const target = childNamed(device, 'target');
  wordOf(target, 'type', ['isa-serial']);
  if (target !== null) wordOf(childNamed(target, 'model'), 'name', ['isa-serial']);
  return {
    source: readCharSource(device),
    log: readLog(device),
    port: integerOf(target, 'port') ?? next,
    ...info(device),
  };
}

export function readConsole(device: XmlElement, next: number): Console {
  const target = childNamed(device, 'target');
  return {
    targetType: wordOf(target, 'type', ['serial', 'virtio']) ?? 'serial',
    source: readCharSource(device),
    log: readLog(device),
    port: integerOf(target, 'port') ?? next,
    ...info(device),
  };
}

export function readChannel(device: XmlElement): Channel {
  const target = childNamed(device, 'target');
  if (target === null)
    throw xmlError(`channel target type must be specified (line ${device.position.line})`);
  wordOf(target, 'type', ['virtio']);
  neededAttribute(target, 'type');
  const source = readCharSource(device);
  const bind: CharSource =
    source.type === 'unix' && source.path === null ? { ...source, mode: 'bind' } : source;
  // libvirt's own default when the guest port has no name.
  const name = attributeOf(target, 'name') ?? 'org.libguestfs.channel.0';
  return { source: bind, log: readLog(device), name, state: null, ...info(device) };
}

export function readInput(device: XmlElement): Input {
  const type = wordOf(device, 'type', ['tablet', 'mouse', 'keyboard']);
  if (type === null) throw xmlError(`missing input device type (line ${device.position.line})`);
  const bus =
    wordOf(device, 'bus', ['usb', 'ps2', 'virtio']) ?? (type === 'tablet' ? 'usb' : 'ps2');
  if (type === 'tablet' && bus === 'ps2')
    throw configError('ps2 bus does not support tablet input device');
  return { type, bus, ...info(device) };
}

export function readGraphics(device: XmlElement): Graphics {
  if (wordOf(device, 'type', ['vnc']) === null) throw xmlError('missing graphics device type');
  const port = attributeOf(device, 'port') ?? '-1';
  if (!/^-1$|^\d{1,5}$/.test(port)) throw xmlError(`cannot parse vnc port ${port}`);
  const autoport = wordOf(device, 'autoport', ['yes', 'no']) === 'yes' || port === '-1';
  return {
    type: 'vnc',
    port: autoport ? null : vncPort(Number(port)),
    autoport,
    listen: readListen(device),
    keymap: attributeOf(device, 'keymap'),
  };
}

/** QEMU speaks of displays: port 5900 is display 0. */
function vncPort(port: number): number {
  if (port < 5900 || port > 65535) throw configError(`vnc port must be in range [5900,65535]`);
  return port;
}

function readListen(device: XmlElement): string | null {
  const listens = childrenNamed(device, 'listen');
  if (listens.length > 1) throw unsupported('more than one <listen>', 'give one');
  wordOf(listens[0] ?? null, 'type', ['address']);
  const attribute = attributeOf(device, 'listen');
  const nested = attributeOf(listens[0] ?? null, 'address');
  if (attribute !== null && nested !== null && attribute !== nested) {
    throw xmlError(
      `graphics 'listen' attribute '${attribute}' must match 'address' attribute of first listen element (found '${nested}')`,
    );
  }
  return attribute ?? nested;
}

export function readAudio(device: XmlElement): Audio {
  wordOf(device, 'type', ['none']);
  return { id: integerOf(device, 'id') ?? 1, type: 'none' };
}

export function readVideo(device: XmlElement): Video {
  const model = childNamed(device, 'model');
  return {
    model: wordOf(model, 'type', ['vga', 'cirrus', 'bochs', 'virtio', 'none']) ?? 'cirrus',
    vramKib: integerOf(model, 'vram'),
    heads: integerOf(model, 'heads'),
    primary: wordOf(model, 'primary', ['yes', 'no']) === 'yes',
    ...info(device),
  };
}

export function readBalloon(device: XmlElement): Balloon {
  const model = wordOf(device, 'model', ['virtio', 'none']);
  if (model === null) throw xmlError('balloon memory must contain model name');
  return {
    model,
    statsPeriodSeconds: integerOf(childNamed(device, 'stats'), 'period'),
    autodeflate: wordOf(device, 'autodeflate', onOff),
    freePageReporting: wordOf(device, 'freePageReporting', onOff),
    ...info(device),
  };
}

export function readRng(device: XmlElement): Rng {
  const backend = childNamed(device, 'backend');
  if (wordOf(device, 'model', ['virtio']) === null) throw xmlError(`missing RNG device model`);
  if (wordOf(backend, 'model', ['random']) === null)
    throw xmlError('missing RNG device backend model');
  const path = backend === null ? '' : textOf(backend).trim();
  const rate = childNamed(device, 'rate');
  return {
    backend: path === '' ? '/dev/random' : absolutePath(path, 'random number source'),
    rateBytes: integerOf(rate, 'bytes'),
    ratePeriodMs: integerOf(rate, 'period'),
    ...info(device),
  };
}
