// Words of libvirt's domain XML that parser and printer share.

import type { Feature } from './definition.js';

/** Namespace of `<qemu:commandline>`. */
export const qemuNamespace = 'http://libvirt.org/schemas/domain/qemu/1.0';

/** In libvirt's order. The ones with a state are on when they do not say; the plain ones are there or not. */
export const featureNames = {
  acpi: 'plain',
  apic: 'plain',
  pae: 'plain',
  hap: 'state',
  pmu: 'state',
  vmport: 'state',
  smm: 'state',
  vmcoreinfo: 'state',
} as const satisfies Record<Feature['name'], 'plain' | 'state'>;
