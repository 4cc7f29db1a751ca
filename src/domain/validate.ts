// Rules over a whole definition; one device at a time is checked where it is read. Texts are libvirt's where it has one.

import { showSource } from '../block/layer.js';
import { isQ35 } from './defaults.js';
import type { Definition } from './definition.js';
import type { Disk } from './disk.js';
import { unsupported } from './grammar.js';
import { configError, xmlError } from './values.js';

const rules: readonly ((definition: Definition) => void)[] = [
  memory,
  diskTargets,
  diskBuses,
  diskKinds,
  bootOrders,
  cpu,
  usb,
  ports,
  screens,
  firmware,
];

/** @throws {RequestError} the first broken rule. */
export function validateDefinition(definition: Definition): void {
  for (const rule of rules) rule(definition);
}

function memory({ currentMemoryKib, memoryKib }: Definition): void {
  if (currentMemoryKib > memoryKib) {
    throw xmlError(`current memory '${currentMemoryKib}k' exceeds maximum '${memoryKib}k'`);
  }
}

const sourceName = (disk: Disk): string => (disk.source === null ? '' : showSource(disk.source));

function diskTargets({ disks }: Definition): void {
  for (const [i, disk] of disks.entries()) {
    const twin = disks.slice(0, i).find((other) => other.target === disk.target);
    if (twin === undefined) continue;
    throw xmlError(
      `target '${disk.target}' duplicated for disk sources '${sourceName(twin)}' and '${sourceName(disk)}'`,
    );
  }
}

function diskBuses({ disks, os }: Definition): void {
  const places = new Set<string>();
  for (const disk of disks) {
    if (disk.bus === 'ide' && isQ35(os.machine)) {
      throw configError('IDE controllers are unsupported for this QEMU binary or machine type');
    }
    const { controller = '0', bus = '0', unit = '0', type } = disk.address ?? {};
    if (disk.bus === 'virtio') {
      if (type !== undefined && type !== 'pci')
        throw xmlError(`unexpected address type for disk '${disk.target}'`);
      continue;
    }
    if (type !== undefined && type !== 'drive')
      throw xmlError(`unexpected address type for ${disk.bus} disk`);
    if (disk.bus === 'ide' && Number(controller) > 0)
      throw configError('Only a single IDE controller is supported for this machine type');
    const place = `${disk.bus} ${controller} ${bus} ${unit}`;
    if (places.has(place)) {
      throw configError(
        `Found duplicate drive address for disk with target name '${disk.target}' controller='${controller}' bus='${bus}' target='0' unit='${unit}'`,
      );
    }
    places.add(place);
  }
}

function diskKinds({ disks }: Definition): void {
  for (const disk of disks) {
    if (disk.device === 'cdrom' && disk.bus === 'virtio') {
      throw configError(`disk type of '${disk.target}' does not support cdrom on bus 'virtio'`);
    }
    if (disk.source?.type === 'network' && disk.driver.io !== null) {
      throw unsupported(`io='${disk.driver.io}' of network disk '${disk.target}'`);
    }
    if (disk.readonly && disk.device === 'disk' && disk.bus !== 'virtio') {
      throw configError(`readonly ${disk.bus} disks are not supported`);
    }
    if (disk.serial !== null && !/^[\w .+-]{1,36}$/.test(disk.serial)) {
      throw configError(`driver serial '${disk.serial}' contains unsafe characters`);
    }
    const uncached = disk.driver.cache === 'none' || disk.driver.cache === 'directsync';
    if (disk.driver.io === 'native' && !uncached) {
      throw configError(
        'native I/O needs either no disk cache or directsync cache mode, QEMU will fallback to aio=threads',
      );
    }
  }
}

function bootOrders({ os, disks, interfaces }: Definition): void {
  const orders = [...disks, ...interfaces].flatMap(({ bootOrder }) =>
    bootOrder === null ? [] : [bootOrder],
  );
  if (orders.length > 0 && os.boot.length > 0) {
    throw configError('per-device boot elements cannot be used together with os/boot elements');
  }
  const twice = orders.find((order, i) => orders.indexOf(order) !== i);
  if (twice !== undefined) throw configError(`boot order '${twice}' used for more than one device`);
}

function cpu({ cpu: given, vcpus, type }: Definition): void {
  if (given === null) return;
  if (given.mode === 'host-passthrough' && type === 'qemu') {
    throw configError(
      "CPU mode 'host-passthrough' for x86_64 qemu domain on x86_64 host is not supported by hypervisor",
    );
  }
  // These words become part of `-cpu`.
  for (const word of [given.model ?? 'qemu64', ...given.features.map(({ name }) => name)]) {
    if (!/^[\w.-]+$/.test(word))
      throw configError(`'${word}' is not a name of a CPU model or feature`);
  }
  if (given.topology === null) return;
  const { sockets, dies, cores, threads } = given.topology;
  if (sockets * dies * cores * threads !== vcpus)
    throw configError("CPU topology doesn't match maximum vcpu count");
}

function screens({ graphics, videos }: Definition): void {
  if (graphics.length > 1) throw unsupported('more than one <graphics>', 'give one');
  if (videos.some(({ model }) => model === 'none') && videos.length > 1) {
    throw xmlError("a 'none' video type must be the only video device defined for the domain");
  }
  for (const { keymap } of graphics) {
    if (keymap !== null && !/^[\w-]+$/.test(keymap))
      throw configError(`'${keymap}' is not a name of a keymap`);
  }
}

function usb({ controllers, inputs }: Definition): void {
  const buses = controllers.filter(({ type }) => type === 'usb');
  const none = buses.some(({ model }) => model === 'none');
  if (none && buses.length > 1)
    throw xmlError("Can't add another USB controller: USB is disabled for this domain");
  if (none && inputs.some(({ bus }) => bus === 'usb')) {
    throw xmlError("Can't add USB input device. USB bus is disabled");
  }
}

function ports({ serials, channels }: Definition): void {
  if (serials.length > 4) throw configError('an x86 machine has at most 4 isa-serial ports');
  const names = channels.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw configError(`channel '${twice}' given twice`);
}

function firmware({ os }: Definition): void {
  if (os.nvram !== null && os.loader?.type !== 'pflash')
    throw configError("<nvram> needs a <loader type='pflash'>");
  if (os.kernel === null && (os.initrd !== null || os.cmdline !== null)) {
    throw xmlError('initrd and cmdline need a <kernel>');
  }
}
