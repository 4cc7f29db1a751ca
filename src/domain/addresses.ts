// `<address>`: where on a bus a device sits. Read, checked and normalised to the spelling that libvirt prints.

import type { XmlElement } from '../xml/tree.js';
import { attributeOf, childNamed, element } from '../xml/tree.js';
import type { DeviceAddress } from './disk.js';
import { unsupported } from './grammar.js';
import { wordOf, xmlError } from './values.js';

interface Field {
  readonly name: string;
  readonly max: number;
  /** Hexadecimal digits that are printed; null: decimal. */
  readonly digits: number | null;
}

const hex = (name: string, max: number, digits: number): Field => ({ name, max, digits });
const decimal = (name: string, max = 0xffff): Field => ({ name, max, digits: null });

/** Fields per address type, in libvirt's order of printing. */
const fields = {
  pci: [hex('domain', 0, 4), hex('bus', 0xff, 2), hex('slot', 0x1f, 2), hex('function', 7, 1)],
  drive: [decimal('controller'), decimal('bus'), decimal('target'), decimal('unit')],
  'virtio-serial': [decimal('controller'), decimal('bus'), decimal('port')],
  usb: [decimal('bus'), decimal('port')],
} as const satisfies Record<string, readonly Field[]>;

type AddressType = keyof typeof fields;
const addressTypes = Object.keys(fields) as AddressType[]; // the table's own keys

/** The address given to a device; null when none is, or only its type. */
export function readAddress(device: XmlElement): DeviceAddress | null {
  refuseUserAlias(device);
  const address = childNamed(device, 'address');
  if (address === null) return null;
  const type = wordOf(address, 'type', addressTypes);
  if (type === null)
    throw xmlError(`missing attribute 'type' of <address> (line ${address.position.line})`);
  const table: readonly Field[] = fields[type];
  const given = Object.keys(address.attributes).filter(
    (name) => name !== 'type' && name !== 'multifunction',
  );
  const stray = given.find((name) => !table.some((field) => field.name === name));
  if (stray !== undefined) throw unsupported(`attribute '${stray}' of a ${type} <address>`);
  if (given.length === 0) return null;
  const read = table.map((field): [string, string] => [
    field.name,
    show(field, valueOf(address, field, type)),
  ]);
  const multifunction = wordOf(address, 'multifunction', ['on', 'off']);
  return {
    type,
    ...Object.fromEntries(read),
    ...(type === 'pci' && multifunction !== null ? { multifunction } : {}),
  };
}

/** A `ua-` alias is the one alias that libvirt keeps; others it makes itself and so do we. */
function refuseUserAlias(device: XmlElement): void {
  const alias = attributeOf(childNamed(device, 'alias'), 'name');
  if (alias?.startsWith('ua-') === true) throw unsupported(`<alias name='${alias}'>`);
}

function valueOf(address: XmlElement, field: Field, type: string): number {
  const value = attributeOf(address, field.name);
  if (value === null) return 0;
  const number = /^(?:0[xX][0-9a-fA-F]{1,8}|\d{1,9})$/.test(value) ? Number(value) : Number.NaN;
  if (Number.isNaN(number)) {
    throw xmlError(
      `Invalid value for attribute '${field.name}' in element 'address': '${value}'. Expected non-negative integer value`,
    );
  }
  if (number > field.max) {
    const most = `0x${field.max.toString(16).toUpperCase()}`;
    throw xmlError(
      `Invalid ${type.toUpperCase()} address ${field.name}='${value}', must be <= ${most}`,
    );
  }
  return number;
}

const show = (field: Field, value: number): string =>
  field.digits === null ? String(value) : `0x${value.toString(16).padStart(field.digits, '0')}`;

export interface PciPlace {
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
}

export function pciAddress(place: PciPlace, multifunction = false): DeviceAddress {
  const two = (value: number): string => `0x${value.toString(16).padStart(2, '0')}`;
  return {
    type: 'pci',
    domain: '0x0000',
    bus: two(place.bus),
    slot: two(place.slot),
    function: `0x${place.function}`,
    ...(multifunction ? { multifunction: 'on' } : {}),
  };
}

/** The place that a PCI address names; null for another kind of address. */
export function pciPlace(address: DeviceAddress | null): PciPlace | null {
  if (address === null || address['type'] !== 'pci') return null;
  const number = (name: string): number => Number(address[name] ?? 0);
  return { bus: number('bus'), slot: number('slot'), function: number('function') };
}

export function printAddress(address: DeviceAddress | null): XmlElement | null {
  return address === null ? null : element('address', address);
}
