// Attribute values of domain XML: words out of a list, numbers, sizes. Messages are libvirt's where it has one.

import { RequestError } from '../std/errors.js';
import type { XmlElement } from '../xml/tree.js';
import { attributeOf, childNamed, textOf } from '../xml/tree.js';
import { unsupported } from './grammar.js';

export const xmlError = (message: string): RequestError =>
  new RequestError('XML_ERROR', message, { from: 'domain' });
export const configError = (message: string): RequestError =>
  new RequestError('CONFIG_UNSUPPORTED', message, { from: 'domain' });

/** The attribute as one of `choices`; null when it is not given. */
export function wordOf<const T extends string>(
  parent: XmlElement | null,
  name: string,
  choices: readonly T[],
): T | null {
  const value = attributeOf(parent, name);
  if (value === null || parent === null) return null;
  const found = choices.find((choice) => choice === value);
  if (found === undefined) {
    throw unsupported(
      `<${parent.name} ${name}='${value}'> (line ${parent.position.line})`,
      oneOf(choices),
    );
  }
  return found;
}

/** The text of a child as one of `choices`; null when there is no such child. */
export function textWord<const T extends string>(
  parent: XmlElement,
  name: string,
  choices: readonly T[],
): T | null {
  const value = childText(parent, name);
  if (value === null) return null;
  const found = choices.find((choice) => choice === value);
  if (found === undefined) throw unsupported(`<${name}>${value}</${name}>`, oneOf(choices));
  return found;
}

const oneOf = (choices: readonly string[]): string => `it has: ${choices.join(', ')}`;

/** A number from 0 up to what libvirt's `unsigned int` holds. */
export function integerOf(parent: XmlElement | null, name: string): number | null {
  const value = attributeOf(parent, name);
  if (value === null || parent === null) return null;
  const number = Number(value);
  if (!/^\d{1,10}$/.test(value) || number > 0xffff_ffff) {
    throw xmlError(
      `Invalid value for attribute '${name}' in element '${parent.name}': '${value}'. Expected non-negative integer value`,
    );
  }
  return number;
}

/** An attribute that has to be there. */
export function neededAttribute(parent: XmlElement, name: string): string {
  const value = attributeOf(parent, name);
  if (value === null || value === '') {
    throw xmlError(
      `missing attribute '${name}' of <${parent.name}> (line ${parent.position.line})`,
    );
  }
  return value;
}

/** The text of a child without the space around it; null for no child and for an empty one. */
export function childText(parent: XmlElement, name: string): string | null {
  const child = childNamed(parent, name);
  const text = child === null ? '' : textOf(child).trim();
  return text === '' ? null : text;
}

/** A path on this host. Relative ones would mean something else to the daemon than to its user. */
export function absolutePath(path: string, what: string): string {
  if (!path.startsWith('/')) throw configError(`${what} '${path}' must be an absolute path`);
  return path;
}

/** Bytes of libvirt's units: decimal ones end in B, binary ones in iB or nothing (virScaleInteger). */
const units: Readonly<Record<string, bigint>> = {
  b: 1n,
  byte: 1n,
  bytes: 1n,
  kb: 10n ** 3n,
  mb: 10n ** 6n,
  gb: 10n ** 9n,
  tb: 10n ** 12n,
  k: 1n << 10n,
  m: 1n << 20n,
  g: 1n << 30n,
  t: 1n << 40n,
  kib: 1n << 10n,
  mib: 1n << 20n,
  gib: 1n << 30n,
  tib: 1n << 40n,
};

/** `<memory unit=>` in KiB, rounded up; null when there is no such child. */
export function kibOf(parent: XmlElement, name: string): number | null {
  const child = childNamed(parent, name);
  const value = childText(parent, name);
  if (child === null || value === null) return null;
  const unit = attributeOf(child, 'unit') ?? 'KiB';
  const factor = Object.hasOwn(units, unit.toLowerCase()) ? units[unit.toLowerCase()] : undefined;
  if (factor === undefined) {
    throw new RequestError('INVALID_ARG', `unknown suffix '${unit}'`, { from: 'domain' });
  }
  if (!/^\d{1,19}$/.test(value))
    throw xmlError(`Invalid value '${value}' for element or attribute './${name}[1]'`);
  const kib = (BigInt(value) * factor + 1023n) >> 10n;
  if (kib > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new RequestError('OVERFLOW', `value too large: ${value}${unit}`, { from: 'domain' });
  }
  return Number(kib);
}
