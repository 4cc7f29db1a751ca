// What a host can run, as libvirt's clients ask for it: `<capabilities>` and `<domainCapabilities>`. Minimal, and true.

import { printXml } from '../xml/print.js';
import type { XmlElement } from '../xml/tree.js';
import { element, textElement } from '../xml/tree.js';

export interface MachineFacts {
  readonly name: string;
  readonly alias: string | null;
  readonly maxCpus: number;
}

export interface CapabilitiesFacts {
  readonly hostUuid: string;
  readonly arch: string;
  readonly cpuModel: string | null;
  readonly cpus: { readonly sockets: number; readonly cores: number; readonly threads: number };
  readonly memoryKib: number;
  readonly emulator: string;
  readonly machines: readonly MachineFacts[];
  readonly kvm: boolean;
}

export function printCapabilities(facts: CapabilitiesFacts): string {
  return printXml(element('capabilities', {}, [host(facts), guest(facts)]));
}

function host({ hostUuid, arch, cpuModel, cpus, memoryKib }: CapabilitiesFacts): XmlElement {
  const { sockets, cores, threads } = cpus;
  const cell = element('cell', { id: 0 }, [
    element('memory', { unit: 'KiB' }, [String(memoryKib)]),
  ]);
  return element('host', {}, [
    textElement('uuid', hostUuid),
    element('cpu', {}, [
      textElement('arch', arch),
      textElement('model', cpuModel),
      element('topology', { sockets, dies: 1, cores, threads }),
    ]),
    element('topology', {}, [element('cells', { num: 1 }, [cell])]),
  ]);
}

function guest({ arch, emulator, machines, kvm }: CapabilitiesFacts): XmlElement {
  const domain = (type: string): XmlElement => element('domain', { type });
  return element('guest', {}, [
    textElement('os_type', 'hvm'),
    element('arch', { name: arch }, [
      textElement('wordsize', 64),
      textElement('emulator', emulator),
      ...machines.flatMap(({ name, alias, maxCpus }) => [
        element('machine', { maxCpus }, [name]),
        alias === null ? null : element('machine', { canonical: name, maxCpus }, [alias]),
      ]),
      domain('qemu'),
      kvm ? domain('kvm') : null,
    ]),
    element('features', {}, [
      element('acpi', { default: 'on', toggle: 'yes' }),
      element('apic', { default: 'on', toggle: 'no' }),
      element('disksnapshot', { default: 'on', toggle: 'no' }),
    ]),
  ]);
}

export interface DomainCapabilitiesFacts {
  readonly emulator: string;
  readonly arch: string;
  readonly machine: string;
  readonly virtType: 'kvm' | 'qemu';
  readonly maxVcpus: number;
}

export function printDomainCapabilities(facts: DomainCapabilitiesFacts): string {
  return printXml(
    element('domainCapabilities', {}, [
      textElement('path', facts.emulator),
      textElement('domain', facts.virtType),
      textElement('machine', facts.machine),
      textElement('arch', facts.arch),
      element('vcpu', { max: facts.maxVcpus }),
      element('os', { supported: 'yes' }, [
        element('loader', { supported: 'yes' }, [
          choice('type', ['rom', 'pflash']),
          choice('readonly', ['yes', 'no']),
        ]),
      ]),
      element('cpu', {}, [
        element('mode', {
          name: 'host-passthrough',
          supported: facts.virtType === 'kvm' ? 'yes' : 'no',
        }),
        element('mode', { name: 'maximum', supported: 'yes' }),
        element('mode', { name: 'host-model', supported: 'yes' }),
      ]),
      devices(),
      element('features', {}, [element('backup', { supported: 'no' })]),
    ]),
  );
}

const choice = (name: string, values: readonly string[]): XmlElement =>
  element(
    'enum',
    { name },
    values.map((value) => textElement('value', value)),
  );

function devices(): XmlElement {
  return element('devices', {}, [
    element('disk', { supported: 'yes' }, [
      choice('diskDevice', ['disk', 'cdrom']),
      choice('bus', ['ide', 'virtio', 'sata']),
    ]),
    element('graphics', { supported: 'yes' }, [choice('type', ['vnc'])]),
    element('video', { supported: 'yes' }, [
      choice('modelType', ['vga', 'cirrus', 'bochs', 'virtio', 'none']),
    ]),
    element('hostdev', { supported: 'no' }),
    element('rng', { supported: 'yes' }, [
      choice('model', ['virtio']),
      choice('backendModel', ['random']),
    ]),
    element('filesystem', { supported: 'no' }),
    element('tpm', { supported: 'no' }),
  ]);
}
