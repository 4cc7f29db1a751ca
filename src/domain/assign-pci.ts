// PCI slots. On i440fx every device sits on bus 0, on q35 a PCI Express device gets a root port of its own; order and
// fixed places are libvirt's (qemuDomainAssignDevicePCISlots, qemuDomainValidateDevicePCISlotsPIIX3 and …Q35).

import type { PciPlace } from './addresses.js';
import { pciAddress, pciPlace } from './addresses.js';
import { isQ35, orderControllers } from './defaults.js';
import type { Definition } from './definition.js';
import type { Controller } from './devices.js';
import type { DeviceAddress } from './disk.js';
import { configError } from './values.js';

/** Something that may need a PCI slot. `bus`: `express` goes to a root port where the machine has them. */
interface Wanting {
  readonly bus: 'express' | 'conventional';
  readonly address: DeviceAddress | null;
  readonly set: (definition: Definition, address: DeviceAddress) => Definition;
}

/** Free places while they are given out. Functions are counted for the chipset's slots only. */
class Slots {
  private readonly taken = new Set<string>();

  take({ bus, slot, function: fn }: PciPlace): void {
    this.taken.add(`${bus}:${slot}`);
    this.taken.add(`${bus}:${slot}.${fn}`);
  }

  has = (bus: number, slot: number): boolean => this.taken.has(`${bus}:${slot}`);
  hasFunction = (bus: number, slot: number, fn: number): boolean =>
    this.taken.has(`${bus}:${slot}.${fn}`);

  next(): PciPlace {
    for (let slot = 1; slot < 31; slot++) {
      if (this.has(0, slot)) continue;
      const place = { bus: 0, slot, function: 0 };
      this.take(place);
      return place;
    }
    throw configError('No more available PCI slots');
  }
}

export function assignPci(definition: Definition): Definition {
  const q35 = isQ35(definition.os.machine);
  const fixed = (q35 ? withQ35Chipset : withPiix3)(definition);
  const slots = new Slots();
  slots.take({ bus: 0, slot: 0, function: 0 });
  if (q35) slots.take({ bus: 0, slot: 31, function: 0 });
  else slots.take({ bus: 0, slot: 1, function: 0 });
  for (const { address } of everyDevice(fixed)) {
    const place = pciPlace(address);
    if (place === null) continue;
    const { bus, slot, function: fn } = place;
    if (slots.hasFunction(bus, slot, fn)) {
      throw configError(
        `PCI address 0000:${hex(bus)}:${hex(slot)}.${fn} is used by more than one device`,
      );
    }
    slots.take(place);
  }
  const screened = withPrimaryVideo(fixed, slots, q35 ? 1 : 2);
  const done = q35 ? assignQ35(screened, slots) : assignI440fx(screened, slots);
  // Last, because devices are remembered by their position until here.
  return { ...done, controllers: orderControllers(done.controllers) };
}

const hex = (value: number): string => value.toString(16).padStart(2, '0');

const everyDevice = (
  definition: Definition,
): readonly { readonly address: DeviceAddress | null }[] => [
  ...definition.disks,
  ...definition.controllers,
  ...definition.interfaces,
  ...definition.inputs,
  ...definition.videos,
  definition.balloon,
  ...definition.rngs,
];

function mapControllers(
  definition: Definition,
  change: (one: Controller) => Controller,
): Definition {
  return { ...definition, controllers: definition.controllers.map(change) };
}

function placed(one: Controller, place: PciPlace): Controller {
  return one.address === null ? { ...one, address: pciAddress(place) } : one;
}

const isPiixUsb = (one: Controller): boolean =>
  one.type === 'usb' && one.index === 0 && one.model === 'piix3-uhci';

function withPiix3(definition: Definition): Definition {
  return mapControllers(definition, (one) => {
    if (one.type === 'ide') return placed(one, { bus: 0, slot: 1, function: 1 });
    return isPiixUsb(one) ? placed(one, { bus: 0, slot: 1, function: 2 }) : one;
  });
}

function withQ35Chipset(definition: Definition): Definition {
  return mapControllers(definition, (one) =>
    one.type === 'sata' && one.index === 0 ? placed(one, { bus: 0, slot: 31, function: 2 }) : one,
  );
}

/** The first screen sits where firmware and guests look for it. */
function withPrimaryVideo(definition: Definition, slots: Slots, slot: number): Definition {
  const [first, ...others] = definition.videos;
  if (first === undefined || first.model === 'none' || first.address !== null) return definition;
  const place = slots.has(0, slot) ? slots.next() : { bus: 0, slot, function: 0 };
  slots.take(place);
  return { ...definition, videos: [{ ...first, address: pciAddress(place) }, ...others] };
}

function assignI440fx(definition: Definition, slots: Slots): Definition {
  const companions = withCompanions(definition, slots);
  return wanting(companions).reduce(
    (done, one) => (one.address === null ? one.set(done, pciAddress(slots.next())) : done),
    companions,
  );
}

function assignQ35(definition: Definition, slots: Slots): Definition {
  const companions = withCompanions(definition, slots);
  const devices = wanting(companions);
  const express = devices.filter((one) => one.bus === 'express' && one.address === null);
  const withPorts = withRootPorts(companions, express.length, slots);
  const free = freePorts(withPorts);
  return devices.reduce((done, one) => {
    if (one.address !== null) return done;
    if (one.bus === 'conventional') return one.set(done, pciAddress(slots.next()));
    const bus = free.shift();
    if (bus === undefined) throw configError('No more available PCI slots');
    return one.set(done, pciAddress({ bus, slot: 0, function: 0 }));
  }, withPorts);
}

/** Root ports that nothing is plugged into, by bus number. */
function freePorts(definition: Definition): number[] {
  const used = new Set(everyDevice(definition).map(({ address }) => pciPlace(address)?.bus));
  return definition.controllers
    .filter((one) => one.model === 'pcie-root-port' && !used.has(one.index))
    .map((one) => one.index)
    .toSorted((a, b) => a - b);
}

/** Enough root ports for `wanted` devices, and one to spare for a hotplug whenever new ones were needed. */
function withRootPorts(definition: Definition, wanted: number, slots: Slots): Definition {
  const missing = wanted - freePorts(definition).length;
  const highest = Math.max(
    0,
    ...definition.controllers.filter((one) => one.type === 'pci').map((one) => one.index),
  );
  const added = Array.from({ length: missing > 0 ? missing + 1 : 0 }, (_, i): Controller => ({
    type: 'pci',
    index: highest + 1 + i,
    model: 'pcie-root-port',
    ports: null,
    vectors: null,
    masterStartPort: null,
    modelName: null,
    chassis: null,
    port: null,
    alias: null,
    address: null,
  }));
  const controllers = [...definition.controllers, ...added];
  const unplaced = controllers.filter(
    (one) => one.model === 'pcie-root-port' && one.address === null,
  );
  const places = portPlaces(unplaced.length, slots);
  return {
    ...definition,
    controllers: controllers.map((one) => {
      if (one.model !== 'pcie-root-port') return one;
      const place = places[unplaced.indexOf(one)];
      const address =
        one.address ?? (place === undefined ? null : pciAddress(place, place.function === 0));
      const at = pciPlace(address);
      return {
        ...one,
        address,
        modelName: one.modelName ?? 'pcie-root-port',
        chassis: one.chassis ?? one.index,
        port: one.port ?? (at === null ? null : at.slot * 8 + at.function),
      };
    }),
  };
}

/** Eight root ports share a slot, one function each. */
function portPlaces(count: number, slots: Slots): readonly PciPlace[] {
  const places: PciPlace[] = [];
  while (places.length < count) {
    const { slot } = slots.next();
    for (let fn = 0; fn < 8 && places.length < count; fn++)
      places.push({ bus: 0, slot, function: fn });
  }
  return places;
}

/** Functions of the ICH9 USB 2 controller and its companions, which share one slot. */
const companionFunctions: Readonly<Record<string, number>> = {
  'ich9-ehci1': 7,
  'ich9-uhci1': 0,
  'ich9-uhci2': 1,
  'ich9-uhci3': 2,
};

function withCompanions(definition: Definition, slots: Slots): Definition {
  const members = definition.controllers.filter(
    (one) => companionFunctions[one.model ?? ''] !== undefined,
  );
  const slotOf = new Map<number, number>();
  for (const index of new Set(members.map((one) => one.index))) {
    const group = members.filter((one) => one.index === index);
    const models = group.map((one) => one.model);
    const twice = models.find((model, i) => models.indexOf(model) !== i);
    if (twice !== undefined) throw configError(`USB controller ${index} has '${twice}' twice`);
    const given = group
      .map((one) => pciPlace(one.address)?.slot)
      .find((slot) => slot !== undefined);
    slotOf.set(index, given ?? slots.next().slot);
  }
  return mapControllers(definition, (one) => {
    const fn = companionFunctions[one.model ?? ''];
    const slot = slotOf.get(one.index);
    if (fn === undefined || slot === undefined || one.address !== null) return one;
    return { ...one, address: pciAddress({ bus: 0, slot, function: fn }, fn === 0) };
  });
}

/** Devices that a PCI slot is chosen for, in libvirt's order. */
function wanting(definition: Definition): readonly Wanting[] {
  return [
    ...list(definition, 'interfaces', (one) =>
      one.model === 'virtio' || one.model === 'e1000e' ? 'express' : 'conventional',
    ),
    ...list(definition, 'controllers', (one) => {
      if (one.type === 'virtio-serial') return 'express';
      if (one.type === 'sata') return 'conventional';
      if (one.type !== 'usb' || one.model === 'none') return null;
      return one.model === 'qemu-xhci' ? 'express' : 'conventional';
    }),
    ...list(definition, 'disks', (one) => (one.bus === 'virtio' ? 'express' : null)),
    ...(definition.balloon.model === 'none' ? [] : [balloon(definition)]),
    ...list(definition, 'rngs', () => 'express'),
    ...list(definition, 'videos', (one) => {
      if (one.model === 'none') return null;
      return one.model === 'virtio' ? 'express' : 'conventional';
    }),
    ...list(definition, 'inputs', (one) => (one.bus === 'virtio' ? 'express' : null)),
  ];
}

type Kind = 'interfaces' | 'controllers' | 'disks' | 'rngs' | 'videos' | 'inputs';

function list<K extends Kind>(
  definition: Definition,
  kind: K,
  bus: (device: Definition[K][number]) => Wanting['bus'] | null,
): readonly Wanting[] {
  const devices: readonly Definition[K][number][] = definition[kind];
  return devices.flatMap((device, at): Wanting[] => {
    const wanted = bus(device);
    if (wanted === null) return [];
    const set = (before: Definition, address: DeviceAddress): Definition => ({
      ...before,
      [kind]: before[kind].map((other, i) => (i === at ? { ...other, address } : other)),
    });
    return [{ bus: wanted, address: device.address, set }];
  });
}

const balloon = (definition: Definition): Wanting => ({
  bus: 'express',
  address: definition.balloon.address,
  set: (before, address) => ({ ...before, balloon: { ...before.balloon, address } }),
});
