// Devices of a definition as QEMU's `-device`, `-netdev`, `-chardev` and `-object`, ids being libvirt's aliases.

import { formatNode } from '../block/layer.js';
import { writeCache } from '../block/node.js';
import { present } from '../std/assert.js';
import { pciPlace } from './addresses.js';
import { isQ35 } from './defaults.js';
import type { Definition } from './definition.js';
import type {
  Audio,
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
import type { DeviceAddress, Disk } from './disk.js';
import { defaultListen } from './print-devices.js';

/** One `-device` in JSON: `driver`, `id`, and the properties that QAPI knows by QOM only. */
export type DeviceOption = Readonly<Record<string, string | number | boolean>>;

const escaped = (value: string): string => value.replaceAll(',', ',,');

const idOf = (device: DeviceInfo): string =>
  present(device.alias, 'a device of a running domain has an alias');

/** Controllers first, so that every bus is there before what sits on it. */
export function deviceOptions(definition: Definition): readonly DeviceOption[] {
  const q35 = isQ35(definition.os.machine);
  const at = (address: DeviceAddress | null): DeviceOption => pciOptions(address, q35);
  const boot = bootIndexes(definition);
  return [
    ...definition.controllers
      .toSorted(busesFirst)
      .flatMap((one) => controllerDevices(one, q35, at)),
    ...definition.disks.map((disk) => diskDevice(disk, at, boot.get(disk) ?? null, q35)),
    ...definition.interfaces.map((one) => networkCard(one, at, boot.get(one) ?? null)),
    ...definition.serials.map(serial),
    ...definition.consoles
      .filter((one) => one.targetType === 'virtio')
      .map((one) => serialPort(one, 'virtconsole')),
    ...definition.channels.map((one) => ({ ...serialPort(one, 'virtserialport'), name: one.name })),
    ...definition.inputs.flatMap((one) => input(one, at)),
    ...definition.videos.flatMap((one) => video(one, at)),
    ...balloon(definition, at),
    ...definition.rngs.map((one) => rng(one, at)),
  ];
}

const busesFirst = (a: Controller, b: Controller): number =>
  Number(b.type === 'pci') - Number(a.type === 'pci');

type Place = (address: DeviceAddress | null) => DeviceOption;

function pciOptions(address: DeviceAddress | null, q35: boolean): DeviceOption {
  const place = pciPlace(address);
  if (place === null) return {};
  const fn = place.function === 0 ? '' : `.0x${place.function.toString(16)}`;
  return {
    bus: q35 && place.bus === 0 ? 'pcie.0' : `pci.${place.bus}`,
    addr: `0x${place.slot.toString(16)}${fn}`,
    ...(address?.['multifunction'] === 'on' ? { multifunction: true } : {}),
  };
}

/** Only what was said: an absent property keeps QEMU's default. */
function said(options: Readonly<Record<string, string | number | boolean | null>>): DeviceOption {
  const entries = Object.entries(options).filter(
    (entry): entry is [string, string | number | boolean] => entry[1] !== null,
  );
  return Object.fromEntries(entries);
}

/** `bootindex` per device, from `<boot order=>` or else from `<os><boot dev=>`, where only the first of a kind counts. */
function bootIndexes(definition: Definition): ReadonlyMap<Disk | Interface, number> {
  const devices = [...definition.disks, ...definition.interfaces];
  const ordered = devices.flatMap((device): [Disk | Interface, number][] =>
    device.bootOrder === null ? [] : [[device, device.bootOrder]],
  );
  if (ordered.length > 0) return new Map(ordered);
  const firsts = definition.os.boot.flatMap((dev): (Disk | Interface)[] => {
    const kind = dev === 'hd' ? 'disk' : 'cdrom';
    const first =
      dev === 'network'
        ? definition.interfaces[0]
        : definition.disks.find((disk) => disk.device === kind);
    return first === undefined ? [] : [first];
  });
  return new Map(firsts.map((device, i) => [device, i + 1]));
}

const usbDrivers: Readonly<Record<string, string>> = {
  'piix3-uhci': 'piix3-usb-uhci',
  'qemu-xhci': 'qemu-xhci',
  'ich9-ehci1': 'ich9-usb-ehci1',
  'ich9-uhci1': 'ich9-usb-uhci1',
  'ich9-uhci2': 'ich9-usb-uhci2',
  'ich9-uhci3': 'ich9-usb-uhci3',
};

/** Nothing for what the machine has built in: root buses, IDE of i440fx, the first SATA controller of q35. */
function controllerDevices(one: Controller, q35: boolean, at: Place): readonly DeviceOption[] {
  switch (one.type) {
    case 'ide':
      return [];
    case 'pci': {
      if (one.model !== 'pcie-root-port') return [];
      const { port, chassis } = one;
      return [
        { driver: 'pcie-root-port', ...said({ port, chassis }), id: idOf(one), ...at(one.address) },
      ];
    }
    case 'sata':
      return q35 && one.index === 0 ? [] : [{ driver: 'ahci', id: idOf(one), ...at(one.address) }];
    case 'virtio-serial': {
      const properties = said({ max_ports: one.ports, vectors: one.vectors });
      return [{ driver: 'virtio-serial-pci', id: idOf(one), ...properties, ...at(one.address) }];
    }
    case 'usb':
      return usbController(one, at);
  }
}

function usbController(one: Controller, at: Place): readonly DeviceOption[] {
  const driver = usbDrivers[one.model ?? ''];
  if (driver === undefined) return [];
  const companion = one.masterStartPort !== null;
  return [
    {
      driver,
      ...(one.model === 'qemu-xhci' ? said({ p2: one.ports, p3: one.ports }) : {}),
      ...(companion ? said({ masterbus: `${idOf(one)}.0`, firstport: one.masterStartPort }) : {}),
      ...(companion ? {} : { id: idOf(one) }),
      ...at(one.address),
    },
  ];
}

function diskDevice(disk: Disk, at: Place, bootindex: number | null, q35: boolean): DeviceOption {
  const node =
    disk.source === null
      ? null
      : formatNode({ index: present(disk.index, 'an image in use has an index') });
  const common = said({
    drive: node,
    id: disk.alias,
    bootindex,
    serial: disk.serial,
    'write-cache': node === null || disk.device === 'cdrom' ? null : writeCache(disk.driver.cache),
    'share-rw': disk.shareable ? true : null,
  });
  if (disk.bus === 'virtio') return { driver: 'virtio-blk-pci', ...at(disk.address), ...common };
  const driver = disk.device === 'cdrom' ? 'ide-cd' : 'ide-hd';
  const { controller = '0', bus = '0', unit = '0' } = disk.address ?? {};
  if (disk.bus === 'ide') return { driver, bus: `ide.${bus}`, unit: Number(unit), ...common };
  const ahci = q35 && controller === '0' ? 'ide' : `sata${controller}`;
  return { driver, bus: `${ahci}.${unit}`, ...common };
}

const cards = {
  virtio: 'virtio-net-pci',
  e1000: 'e1000',
  e1000e: 'e1000e',
  rtl8139: 'rtl8139',
} as const satisfies Record<Interface['model'], string>;

const networkCard = (one: Interface, at: Place, bootindex: number | null): DeviceOption => ({
  driver: cards[one.model],
  netdev: `host${idOf(one)}`,
  id: idOf(one),
  mac: one.mac,
  ...said({ bootindex }),
  ...at(one.address),
});

/** `-netdev`; a tap is the user's: no script of QEMU's brings it up. */
export function netdevs({ interfaces }: Definition): readonly string[] {
  return interfaces.map((one) =>
    one.type === 'user'
      ? `user,id=host${idOf(one)}`
      : `tap,id=host${idOf(one)},ifname=${escaped(one.targetDev ?? '')},script=no,downscript=no`,
  );
}

const serial = (one: Serial): DeviceOption => ({
  driver: 'isa-serial',
  chardev: `char${idOf(one)}`,
  id: idOf(one),
  index: one.port,
});

function serialPort(
  one: Channel | Console,
  driver: 'virtserialport' | 'virtconsole',
): DeviceOption {
  const { controller = '0', bus = '0', port = '0' } = one.address ?? {};
  const id = idOf(one);
  return {
    driver,
    bus: `virtio-serial${controller}.${bus}`,
    nr: Number(port),
    chardev: `char${id}`,
    id,
  };
}

/** `-chardev` of every port that has its own; a console that is a serial port's other face has none. */
export function charDevices(definition: Definition, channelDir: string): readonly string[] {
  const ports = [
    ...definition.serials,
    ...definition.consoles.filter((one) => one.targetType === 'virtio'),
    ...definition.channels.map((one) => withSocket(one, definition.uuid, channelDir)),
  ];
  return ports.map(
    (port) => `${charBackend(port.source, `char${idOf(port)}`)}${charLog(port.log)}`,
  );
}

/** Where the socket of a channel is that names no path: short, because a socket's path has 107 bytes at most. */
export function channelSocket(channel: Channel, uuid: string, channelDir: string): string {
  return `${channelDir}/${uuid}.${idOf(channel)}`;
}

/** The channel with the path of its socket, chosen if it was not given. */
export function withSocket(channel: Channel, uuid: string, channelDir: string): Channel {
  const { source } = channel;
  if (source.type !== 'unix' || source.path !== null) return channel;
  return { ...channel, source: { ...source, path: channelSocket(channel, uuid, channelDir) } };
}

function charBackend(source: CharSource, id: string): string {
  switch (source.type) {
    case 'pty':
      return `pty,id=${id}`;
    case 'null':
      return `null,id=${id}`;
    case 'file':
      return `file,id=${id},path=${escaped(source.path)}${source.append === null ? '' : `,append=${source.append}`}`;
    case 'unix': {
      const path = escaped(present(source.path, 'a socket of a running domain has a path'));
      return `socket,id=${id},path=${path}${source.mode === 'bind' ? ',server=on,wait=off' : ''}`;
    }
  }
}

const charLog = (log: CharLog | null): string =>
  log === null
    ? ''
    : `,logfile=${escaped(log.file)}${log.append === null ? '' : `,logappend=${log.append}`}`;

const pointers = { tablet: 'tablet', mouse: 'mouse', keyboard: 'kbd' } as const;

/** PS/2 devices are part of the machine. */
function input(one: Input, at: Place): readonly DeviceOption[] {
  switch (one.bus) {
    case 'ps2':
      return [];
    case 'usb':
      return [
        {
          driver: `usb-${pointers[one.type]}`,
          id: idOf(one),
          bus: 'usb.0',
          ...said({ port: one.address?.['port'] ?? null }),
        },
      ];
    case 'virtio':
      return [{ driver: `virtio-${one.type}-pci`, id: idOf(one), ...at(one.address) }];
  }
}

/** Driver of the screen that firmware uses, and of a further one. */
const screens = {
  vga: ['VGA', 'secondary-vga'],
  cirrus: ['cirrus-vga', 'cirrus-vga'],
  bochs: ['bochs-display', 'bochs-display'],
  virtio: ['virtio-vga', 'virtio-gpu-pci'],
} as const satisfies Record<Exclude<Video['model'], 'none'>, readonly [string, string]>;

function video(one: Video, at: Place): readonly DeviceOption[] {
  if (one.model === 'none') return [];
  const memory = one.vramKib === null ? null : Math.max(1, Math.floor(one.vramKib / 1024));
  const properties = {
    vga: { vgamem_mb: memory },
    cirrus: { vgamem_mb: memory },
    bochs: { vgamem: one.vramKib === null ? null : one.vramKib * 1024 },
    virtio: { max_outputs: one.heads },
  }[one.model];
  return [
    {
      driver: screens[one.model][one.primary ? 0 : 1],
      id: idOf(one),
      ...said(properties),
      ...at(one.address),
    },
  ];
}

/** `-vnc`, and the keyboard layout it translates from. Port null: the first free one, which `query-vnc` tells. */
export function vnc(one: Graphics, audio: Audio | null): readonly (readonly [string, string])[] {
  const host = one.listen ?? defaultListen;
  const shown = host.includes(':') ? `[${host}]` : host;
  const display = one.port === null ? '0,to=999' : String(one.port - 5900);
  const sound = audio === null ? '' : `,audiodev=audio${audio.id}`;
  const keymap = one.keymap === null ? [] : [['-k', one.keymap] as const];
  return [['-vnc', `${escaped(shown)}:${display}${sound}`], ...keymap];
}

function balloon({ balloon: one }: Definition, at: Place): readonly DeviceOption[] {
  if (one.model === 'none') return [];
  const onOff = (value: 'on' | 'off' | null): boolean | null =>
    value === null ? null : value === 'on';
  const properties = said({
    'deflate-on-oom': onOff(one.autodeflate),
    'free-page-reporting': onOff(one.freePageReporting),
  });
  return [{ driver: 'virtio-balloon-pci', id: idOf(one), ...properties, ...at(one.address) }];
}

function rng(one: Rng, at: Place): DeviceOption {
  const limits = said({
    'max-bytes': one.rateBytes,
    period: one.rateBytes === null ? null : (one.ratePeriodMs ?? 1000),
  });
  return {
    driver: 'virtio-rng-pci',
    rng: `obj${idOf(one)}`,
    id: idOf(one),
    ...limits,
    ...at(one.address),
  };
}

/** `-object`. */
export const objects = ({ rngs }: Definition): readonly DeviceOption[] =>
  rngs.map((one) => ({ 'qom-type': 'rng-random', id: `obj${idOf(one)}`, filename: one.backend }));
