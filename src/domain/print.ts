// Definition to `<domain>`, element for element and attribute for attribute as libvirt 9.0 prints it
// (virDomainDefFormatInternal): clients compare and edit this text.

import { printXml } from '../xml/print.js';
import type { Maybe, XmlElement } from '../xml/tree.js';
import { element, textElement } from '../xml/tree.js';
import type { Clock, Cpu, Definition, Os } from './definition.js';
import { featureNames, qemuNamespace } from './names.js';
import { printDevices } from './print-devices.js';

export interface PrintOptions {
  /** The number of the running domain. */
  readonly id?: number | null;
  /** `true`: what the next start gets. `false`: what runs, with aliases, indexes, chains and mirrors. */
  readonly inactive: boolean;
}

export function printDefinition(definition: Definition, options: PrintOptions): string {
  return printXml(definitionElement(definition, options), { foreignBelow: 'metadata' });
}

/** The same as a tree, to be put into a snapshot; there `name` may be `inactiveDomain`. */
export function definitionElement(
  definition: Definition,
  options: PrintOptions,
  name = 'domain',
): XmlElement {
  const extended = definition.qemuArgs.length > 0 || definition.qemuEnv.length > 0;
  const attributes = {
    type: definition.type,
    id: options.inactive ? null : options.id,
    'xmlns:qemu': extended ? qemuNamespace : null,
  };
  return element(name, attributes, [
    textElement('name', definition.name),
    textElement('uuid', definition.uuid),
    textElement('title', definition.title),
    textElement('description', definition.description),
    definition.metadata,
    element('memory', { unit: 'KiB' }, [String(definition.memoryKib)]),
    element('currentMemory', { unit: 'KiB' }, [String(definition.currentMemoryKib)]),
    element('vcpu', { placement: 'static', current: definition.currentVcpus }, [
      String(definition.vcpus),
    ]),
    printOs(definition.os),
    printFeatures(definition),
    printCpu(definition.cpu),
    printClock(definition.clock),
    textElement('on_poweroff', definition.onPoweroff),
    textElement('on_reboot', definition.onReboot),
    textElement('on_crash', definition.onCrash),
    printPm(definition.pm),
    printDevices(definition, options.inactive),
    extended ? printQemu(definition) : null,
  ]);
}

function printOs(os: Os): XmlElement {
  const { loader, nvram, bootmenu } = os;
  return element('os', {}, [
    element('type', { arch: os.arch, machine: os.machine }, ['hvm']),
    loader === null
      ? null
      : element('loader', { readonly: loader.readonly, secure: loader.secure, type: loader.type }, [
          loader.path,
        ]),
    nvram === null ? null : element('nvram', { template: nvram.template }, [nvram.path]),
    textElement('kernel', os.kernel),
    textElement('initrd', os.initrd),
    textElement('cmdline', os.cmdline),
    ...os.boot.map((dev) => element('boot', { dev })),
    bootmenu === null
      ? null
      : element('bootmenu', { enable: bootmenu.enable, timeout: bootmenu.timeoutMs }),
  ]);
}

function printFeatures({ features }: Definition): XmlElement | null {
  if (features.length === 0) return null;
  return element(
    'features',
    {},
    features.map(({ name, state }) =>
      element(name, featureNames[name] === 'plain' ? {} : { state: state ?? 'on' }),
    ),
  );
}

function printCpu(cpu: Cpu | null): XmlElement | null {
  if (cpu === null) return null;
  const { mode, match, check, migratable, fallback, topology } = cpu;
  return element('cpu', { mode, match, check, migratable }, [
    cpu.model === null ? null : element('model', { fallback }, [cpu.model]),
    textElement('vendor', cpu.vendor),
    topology === null ? null : element('topology', { ...topology }),
    ...cpu.features.map(({ policy, name }) => element('feature', { policy, name })),
  ]);
}

function printClock({ offset, timers }: Clock): XmlElement {
  return element(
    'clock',
    { offset },
    timers.map(({ name, present, tickpolicy, track }) =>
      element('timer', { name, present, tickpolicy, track }),
    ),
  );
}

function printPm(pm: Definition['pm']): XmlElement | null {
  if (pm === null) return null;
  const state = (name: string, enabled: Maybe<string>): XmlElement | null =>
    enabled === null ? null : element(name, { enabled });
  return element('pm', {}, [
    state('suspend-to-mem', pm.suspendToMem),
    state('suspend-to-disk', pm.suspendToDisk),
  ]);
}

function printQemu({ qemuArgs, qemuEnv }: Definition): XmlElement {
  return element('qemu:commandline', {}, [
    ...qemuArgs.map((value) => element('qemu:arg', { value })),
    ...qemuEnv.map(({ name, value }) =>
      element('qemu:env', { name, value: value === '' ? null : value }),
    ),
  ]);
}
