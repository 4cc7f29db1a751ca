// Gives every device its alias and its place on a bus, as libvirt does at define. What is given is kept; what is new goes
// to the lowest free place, so that the same definition always gets the same ones.

import { assignPci } from './assign-pci.js';
import { diskIndex, isQ35, unitsPerController } from './defaults.js';
import type { Definition } from './definition.js';
import type { Channel, Console, Controller, DeviceInfo, Input } from './devices.js';
import type { DeviceAddress, Disk } from './disk.js';
import { configError } from './values.js';

export function assignDevices(definition: Definition): Definition {
  return withAliases(withSerialPorts(withUsbPorts(assignPci(withDrives(definition)))));
}

function withDrives(definition: Definition): Definition {
  const disks = definition.disks.map((disk) =>
    disk.bus === 'virtio' || disk.address !== null
      ? disk
      : { ...disk, address: driveAddress(disk.bus, disk.target) },
  );
  return { ...definition, disks };
}

/** virDomainDiskDefAssignAddress: the disk's letter says its place. */
function driveAddress(bus: 'ide' | 'sata', target: string): DeviceAddress {
  const index = diskIndex(target);
  const units = unitsPerController[bus];
  const unit = index % units;
  return {
    type: 'drive',
    controller: String(Math.floor(index / units)),
    bus: bus === 'ide' ? String(Math.floor(unit / 2)) : '0',
    target: '0',
    unit: String(bus === 'ide' ? unit % 2 : unit),
  };
}

/** Root ports of a USB controller; a hub would give more, and we have none. */
function usbPorts(controller: Controller): number {
  if (controller.ports !== null) return controller.ports;
  return { 'piix3-uhci': 2, 'ich9-ehci1': 6 }[controller.model ?? ''] ?? 4;
}

function withUsbPorts(definition: Definition): Definition {
  const bus = definition.controllers.find((one) => one.type === 'usb' && one.index === 0);
  const taken = new Set(definition.inputs.map((input) => input.address?.['port'] ?? ''));
  const inputs = definition.inputs.map((input): Input => {
    if (input.bus !== 'usb' || input.address !== null || bus === undefined) return input;
    const port = nextFree(taken, 1, usbPorts(bus), 'USB ports');
    return { ...input, address: { type: 'usb', bus: '0', port } };
  });
  return { ...definition, inputs };
}

/** Ports of the first virtio-serial controller; 0 belongs to a console. */
function withSerialPorts(definition: Definition): Definition {
  const virtio = definition.consoles.filter((one) => one.targetType === 'virtio');
  const taken = new Set(
    [...definition.channels, ...virtio].map((one) => one.address?.['port'] ?? ''),
  );
  const most =
    (definition.controllers.find((one) => one.type === 'virtio-serial')?.ports ?? 31) - 1;
  const place = <T extends Channel | Console>(port: T): T =>
    port.address !== null
      ? port
      : {
          ...port,
          address: {
            type: 'virtio-serial',
            controller: '0',
            bus: '0',
            port: nextFree(taken, 1, most, 'ports of the virtio-serial controller'),
          },
        };
  return {
    ...definition,
    consoles: definition.consoles.map((one) => (one.targetType === 'virtio' ? place(one) : one)),
    channels: definition.channels.map(place),
  };
}

function nextFree(taken: Set<string>, from: number, to: number, what: string): string {
  for (let i = from; i <= to; i++) {
    if (taken.has(String(i))) continue;
    taken.add(String(i));
    return String(i);
  }
  throw configError(`no more ${what}: all of ${from} to ${to} are taken`);
}

function withAliases(definition: Definition): Definition {
  const serials = numbered(definition.serials, 'serial');
  const consoles = numbered(definition.consoles, 'console').map((one) => {
    if (one.targetType === 'virtio') return one;
    const port = serials.find((serial) => serial.port === one.port) ?? serials[0];
    return { ...one, alias: port?.alias ?? one.alias };
  });
  return {
    ...definition,
    disks: definition.disks.map((disk) => ({ ...disk, alias: disk.alias ?? diskAlias(disk) })),
    controllers: definition.controllers.map((one) => ({
      ...one,
      alias: one.alias ?? controllerAlias(one, isQ35(definition.os.machine)),
    })),
    interfaces: numbered(definition.interfaces, 'net'),
    serials,
    consoles,
    channels: numbered(definition.channels, 'channel'),
    inputs: numbered(definition.inputs, 'input'),
    videos: numbered(definition.videos, 'video'),
    balloon: {
      ...definition.balloon,
      alias: definition.balloon.model === 'none' ? null : 'balloon0',
    },
    rngs: numbered(definition.rngs, 'rng'),
  };
}

/** `prefix0`, `prefix1`, …; numbers already taken are not given again. */
function numbered<T extends DeviceInfo>(devices: readonly T[], prefix: string): readonly T[] {
  const taken = new Set(devices.map(({ alias }) => alias));
  let next = 0;
  return devices.map((device) => {
    if (device.alias !== null) return device;
    while (taken.has(`${prefix}${next}`)) next++;
    return { ...device, alias: `${prefix}${next++}` };
  });
}

/** qemuAssignDeviceDiskAlias. */
function diskAlias(disk: Disk): string {
  if (disk.bus === 'virtio') return `virtio-disk${diskIndex(disk.target)}`;
  const { controller, bus, unit } = disk.address ?? {};
  return `${disk.bus}${controller}-${bus}-${unit}`;
}

/** qemuAssignDeviceControllerAlias: built-in controllers have the names that QEMU gave their buses. */
function controllerAlias(controller: Controller, q35: boolean): string {
  const { type, index, model } = controller;
  if (type === 'pci') return model === 'pcie-root' ? `pcie.${index}` : `pci.${index}`;
  if (type === 'ide' || (type === 'sata' && index === 0 && q35)) return 'ide';
  if (type === 'usb' && model === 'none') return 'usb';
  if (type === 'usb' && index === 0) return 'usb';
  return `${type}${index}`;
}
