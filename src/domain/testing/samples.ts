// Definitions for tests: what libvirt 9.0 made, and small ones of our own.

import { readFileSync } from 'node:fs';

import type { Definition, ParseContext } from '../definition.js';
import { parseDefinition } from '../parse.js';

export const fixture = (name: string): string =>
  readFileSync(
    new URL(`../../../../test/fixtures/domain-xml/${name}.xml`, import.meta.url),
    'utf8',
  );

const aliases: Readonly<Record<string, string>> = { pc: 'pc-i440fx-7.2', q35: 'pc-q35-7.2' };

export const context: ParseContext = {
  newUuid: () => '99999999-2222-3333-4444-555555555501',
  newMac: () => '52:54:00:00:00:01',
  emulator: '/usr/bin/qemu-system-x86_64',
  canonicalMachine: (machine) => aliases[machine] ?? (machine.startsWith('pc-') ? machine : null),
};

/** The smallest domain, with `devices` in it and `rest` behind. */
export const domainXml = (devices = '', rest = '', machine = 'pc'): string =>
  `<domain type='qemu'>
  <name>vm1</name>
  <uuid>11111111-2222-3333-4444-555555555501</uuid>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='${machine}'>hvm</type></os>
  ${rest}
  <devices>${devices}</devices>
</domain>`;

export const domain = (devices = '', rest = '', machine = 'pc'): Definition =>
  parseDefinition(domainXml(devices, rest, machine), context);

export const diskXml = (
  target: string,
  options: { readonly snapshot?: string; readonly path?: string } = {},
): string =>
  `<disk type='file' device='disk' ${options.snapshot === undefined ? '' : `snapshot='${options.snapshot}'`}>
    <driver name='qemu' type='qcow2'/><source file='${options.path ?? `/img/${target}.qcow2`}'/>
    <target dev='${target}' bus='virtio'/></disk>`;
