// `<devices>` in libvirt's order. What a start allocates (aliases, pty paths, VNC ports) shows in live XML only.

import type { Maybe, XmlElement, XmlNode } from '../xml/tree.js';
import { element } from '../xml/tree.js';
import { printAddress } from './addresses.js';
import type { Definition } from './definition.js';
import type {
  Balloon,
  Channel,
  CharLog,
  CharSource,
  Console,
  Controller,
  DeviceInfo,
  Graphics,
  Interface,
  Rng,
  Serial,
  Video,
} from './devices.js';
import { printDisk } from './print-disk.js';

/** Where a VNC server listens when nobody says: libvirt's `vnc_listen`. */
export const defaultListen = '127.0.0.1';

export function printDevices(definition: Definition, inactive: boolean): XmlElement {
  const tail = (device: DeviceInfo): readonly Maybe<XmlNode>[] => [
    device.alias === null || inactive ? null : element('alias', { name: device.alias }),
    printAddress(device.address),
  ];
  return element('devices', {}, [
    element('emulator', {}, [definition.emulator]),
    ...definition.disks.map((disk) => printDisk(disk, inactive)),
    ...definition.controllers.map((one) => printController(one, tail(one))),
    ...definition.interfaces.map((one) => printInterface(one, tail(one))),
    ...definition.serials.map((one) => printSerial(one, inactive, tail(one))),
    ...definition.consoles.map((one) => printConsole(one, inactive, tail(one))),
    ...definition.channels.map((one) => printChannel(one, inactive, tail(one))),
    ...definition.inputs.map((one) =>
      element('input', { type: one.type, bus: one.bus }, tail(one)),
    ),
    ...definition.graphics.map((one) => printGraphics(one, inactive)),
    ...definition.audios.map(({ id, type }) => element('audio', { id, type })),
    ...definition.videos.map((one) => printVideo(one, tail(one))),
    printBalloon(definition.balloon, tail(definition.balloon)),
    ...definition.rngs.map((one) => printRng(one, tail(one))),
  ]);
}

type Tail = readonly Maybe<XmlNode>[];

function printController(one: Controller, tail: Tail): XmlElement {
  const { type, index, model, ports, vectors } = one;
  const port = one.port === null ? null : `0x${one.port.toString(16)}`;
  const targeted = one.chassis !== null || one.port !== null;
  return element('controller', { type, index, model, ports, vectors }, [
    one.masterStartPort === null ? null : element('master', { startport: one.masterStartPort }),
    one.modelName === null ? null : element('model', { name: one.modelName }),
    targeted ? element('target', { chassis: one.chassis, port }) : null,
    ...tail,
  ]);
}

function printInterface(one: Interface, tail: Tail): XmlElement {
  const target =
    one.targetDev === null
      ? null
      : element('target', { dev: one.targetDev, managed: one.targetManaged });
  return element('interface', { type: one.type }, [
    element('mac', { address: one.mac }),
    target,
    element('model', { type: one.model }),
    one.link === null ? null : element('link', { state: one.link }),
    one.bootOrder === null ? null : element('boot', { order: one.bootOrder }),
    ...tail,
  ]);
}

function printCharSource(source: CharSource, inactive: boolean): XmlElement | null {
  switch (source.type) {
    case 'null':
      return null;
    case 'pty':
      return source.path === null || inactive ? null : element('source', { path: source.path });
    case 'file':
      return element('source', { path: source.path, append: source.append });
    case 'unix':
      return source.path === null
        ? null
        : element('source', { mode: source.mode, path: source.path });
  }
}

const printLog = (log: CharLog | null): XmlElement | null =>
  log === null ? null : element('log', { file: log.file, append: log.append });

function printSerial(one: Serial, inactive: boolean, tail: Tail): XmlElement {
  return element('serial', { type: one.source.type }, [
    printCharSource(one.source, inactive),
    printLog(one.log),
    element('target', { type: 'isa-serial', port: one.port }, [
      element('model', { name: 'isa-serial' }),
    ]),
    ...tail,
  ]);
}

function printConsole(one: Console, inactive: boolean, tail: Tail): XmlElement {
  const tty = one.source.type === 'pty' && !inactive ? one.source.path : null;
  return element('console', { type: one.source.type, tty }, [
    printCharSource(one.source, inactive),
    printLog(one.log),
    element('target', { type: one.targetType, port: one.port }),
    ...tail,
  ]);
}

function printChannel(one: Channel, inactive: boolean, tail: Tail): XmlElement {
  return element('channel', { type: one.source.type }, [
    printCharSource(one.source, inactive),
    printLog(one.log),
    element('target', { type: 'virtio', name: one.name, state: inactive ? null : one.state }),
    ...tail,
  ]);
}

function printGraphics(one: Graphics, inactive: boolean): XmlElement {
  const listen = inactive ? one.listen : (one.listen ?? defaultListen);
  const port = one.autoport && inactive ? null : one.port;
  const attributes = {
    type: one.type,
    port: port ?? -1,
    autoport: one.autoport ? 'yes' : 'no',
    listen,
    keymap: one.keymap,
  };
  return element('graphics', attributes, [element('listen', { type: 'address', address: listen })]);
}

function printVideo(one: Video, tail: Tail): XmlElement {
  const model = {
    type: one.model,
    vram: one.vramKib,
    heads: one.heads,
    primary: one.primary ? 'yes' : null,
  };
  return element('video', {}, [element('model', model), ...tail]);
}

function printBalloon(one: Balloon, tail: Tail): XmlElement {
  const { model, autodeflate, freePageReporting, statsPeriodSeconds } = one;
  return element('memballoon', { model, autodeflate, freePageReporting }, [
    statsPeriodSeconds === null ? null : element('stats', { period: statsPeriodSeconds }),
    ...tail,
  ]);
}

function printRng(one: Rng, tail: Tail): XmlElement {
  const rate =
    one.rateBytes === null
      ? null
      : element('rate', { bytes: one.rateBytes, period: one.ratePeriodMs });
  return element('rng', { model: 'virtio' }, [
    rate,
    element('backend', { model: 'random' }, [one.backend]),
    ...tail,
  ]);
}
