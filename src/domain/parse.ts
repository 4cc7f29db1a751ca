// `<domain>` to a Definition: read strictly, complete as libvirt completes it at define, then check it as a whole.

import { RequestError } from '../std/errors.js';
import { parseXml } from '../xml/parse.js';
import type { XmlElement, XmlNode } from '../xml/tree.js';
import { attributeOf, childNamed, childrenNamed, textOf } from '../xml/tree.js';
import { assignDevices } from './assign.js';
import { fillDefaults } from './defaults.js';
import type {
  Clock,
  Cpu,
  Definition,
  Feature,
  LifecycleAction,
  Loader,
  Os,
  ParseContext,
} from './definition.js';
import type { Draft } from './defaults.js';
import { checkGrammar, domainGrammar, unsupported } from './grammar.js';
import {
  readAudio,
  readBalloon,
  readChannel,
  readConsole,
  readControllers,
  readGraphics,
  readInput,
  readInterface,
  readRng,
  readSerial,
  readVideo,
} from './parse-devices.js';
import { readDisk } from './parse-disk.js';
import { featureNames, qemuNamespace } from './names.js';
import { validateDefinition } from './validate.js';
import {
  absolutePath,
  childText,
  configError,
  integerOf,
  kibOf,
  neededAttribute,
  textWord,
  wordOf,
  xmlError,
} from './values.js';

const yesNo = ['yes', 'no'] as const;
const onOff = ['on', 'off'] as const;
const actions = ['destroy', 'restart', 'preserve'] as const satisfies readonly LifecycleAction[];

/**
 * Parses what define, create and a redefined snapshot send; live XML fed back is as good as inactive XML.
 * The result is complete: defaults, controllers, addresses and aliases are there.
 *
 * @throws {RequestError} malformed (35), not libvirt's (27), not ours (67).
 */
export function parseDefinition(xml: string, context: ParseContext): Definition {
  return readDefinition(parseXml(xml, 'domain_definition'), context);
}

/** As `parseDefinition`, of a tree: `<domain>`, or `<inactiveDomain>` within a snapshot. */
export function readDefinition(root: XmlElement, context: ParseContext): Definition {
  if (root.name !== 'domain' && root.name !== 'inactiveDomain') {
    throw xmlError(`expecting root element of 'domain', not '${root.name}'`);
  }
  const domain = withQemuPrefix(root);
  checkGrammar(domain, domainGrammar);
  const definition = assignDevices(fillDefaults(readDraft(domain, context), context));
  validateDefinition(definition);
  return definition;
}

/** Whatever prefix the document binds to libvirt's qemu namespace is read as `qemu`. */
function withQemuPrefix(root: XmlElement): XmlElement {
  const bound = Object.entries(root.attributes).find(
    ([name, uri]) => name.startsWith('xmlns:') && uri === qemuNamespace,
  );
  const foreign = root.children.find(
    (child) =>
      typeof child !== 'string' && child.name.startsWith('qemu:') && bound?.[0] !== 'xmlns:qemu',
  );
  if (foreign !== undefined) throw xmlError(`prefix 'qemu' is not bound to ${qemuNamespace}`);
  if (bound === undefined || bound[0] === 'xmlns:qemu') return root;
  const prefix = `${bound[0].slice('xmlns:'.length)}:`;
  const renamed = (node: XmlNode): XmlNode =>
    typeof node === 'string' || !node.name.startsWith(prefix)
      ? node
      : {
          ...node,
          name: `qemu:${node.name.slice(prefix.length)}`,
          children: node.children.map(renamed),
        };
  return { ...root, children: root.children.map(renamed) };
}

function readDraft(domain: XmlElement, context: ParseContext): Draft {
  const type = wordOf(domain, 'type', ['kvm', 'qemu']);
  if (type === null) throw xmlError('missing domain type attribute');
  for (const label of childrenNamed(domain, 'seclabel')) {
    if (attributeOf(label, 'type') === 'static') throw unsupported("<seclabel type='static'>");
  }
  const memoryKib = kibOf(domain, 'memory') ?? 0;
  if (memoryKib === 0) {
    throw xmlError('Memory size must be specified via <memory> or in the <numa> configuration');
  }
  const os = readOs(childNamed(domain, 'os'));
  return {
    type,
    ...readNames(domain, context),
    memoryKib,
    currentMemoryKib: kibOf(domain, 'currentMemory') ?? memoryKib,
    ...readVcpus(domain),
    os,
    features: readFeatures(childNamed(domain, 'features')),
    cpu: readCpu(childNamed(domain, 'cpu')),
    clock: readClock(childNamed(domain, 'clock')),
    onPoweroff: textWord(domain, 'on_poweroff', actions) ?? 'destroy',
    onReboot: textWord(domain, 'on_reboot', actions) ?? 'restart',
    onCrash: textWord(domain, 'on_crash', actions) ?? 'destroy',
    pm: readPm(childNamed(domain, 'pm')),
    ...readDevices(childNamed(domain, 'devices'), context),
    ...readQemu(childNamed(domain, 'qemu:commandline')),
  };
}

function readNames(domain: XmlElement, context: ParseContext) {
  const name = childText(domain, 'name');
  if (name === null) throw new RequestError('NO_NAME', '', { from: 'domain' });
  if (name.includes('/')) throw xmlError(`name ${name} cannot contain '/'`);
  if (/[\n\r]/.test(name)) throw xmlError(`invalid char in name: '\\n'`);
  const title = childNamed(domain, 'title');
  if (title !== null && textOf(title).includes('\n'))
    throw xmlError("Domain title can't contain newlines");
  const description = childNamed(domain, 'description');
  const metadata = childNamed(domain, 'metadata');
  return {
    name,
    uuid: readUuid(childText(domain, 'uuid')) ?? context.newUuid(),
    title: title === null ? null : nonEmpty(textOf(title)),
    description: description === null ? null : nonEmpty(textOf(description)),
    metadata: metadata === null || metadata.children.length === 0 ? null : metadata,
  };
}

const nonEmpty = (text: string): string | null => (text === '' ? null : text);

/** With or without dashes, in either case, as virUUIDParse. */
function readUuid(text: string | null): string | null {
  if (text === null) return null;
  const hex = text.replaceAll('-', '').toLowerCase();
  if (!/^[0-9a-f]{32}$/.test(hex)) {
    throw new RequestError('XML_ERROR', 'malformed uuid element', { from: 'domain' });
  }
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

function readVcpus(domain: XmlElement): { vcpus: number; currentVcpus: number | null } {
  const element = childNamed(domain, 'vcpu');
  const text = childText(domain, 'vcpu') ?? '1';
  const vcpus = Number(text);
  if (!/^\d{1,5}$/.test(text) || vcpus === 0)
    throw xmlError('maximum vcpus count must be an integer');
  wordOf(element, 'placement', ['static']);
  const current = integerOf(element, 'current');
  if (current === 0 || (current ?? 0) > vcpus) {
    throw configError('maximum vCPU count must not be less than current vCPU count');
  }
  return { vcpus, currentVcpus: current === vcpus ? null : current };
}

function readOs(os: XmlElement | null): Os {
  const type = os === null ? null : childNamed(os, 'type');
  if (os === null || type === null) throw xmlError('an os <type> must be specified');
  textWord(os, 'type', ['hvm']);
  const bootmenu = childNamed(os, 'bootmenu');
  const nvram = childNamed(os, 'nvram');
  const file = (name: string): string | null => {
    const path = childText(os, name);
    return path === null ? null : absolutePath(path, `<${name}>`);
  };
  return {
    arch: wordOf(type, 'arch', ['x86_64']) ?? 'x86_64',
    machine: attributeOf(type, 'machine') ?? 'pc',
    loader: readLoader(childNamed(os, 'loader'), file('loader')),
    nvram:
      nvram === null ? null : { template: attributeOf(nvram, 'template'), path: file('nvram') },
    kernel: file('kernel'),
    initrd: file('initrd'),
    cmdline: childText(os, 'cmdline'),
    boot: childrenNamed(os, 'boot').map((boot) => {
      neededAttribute(boot, 'dev');
      return wordOf(boot, 'dev', ['hd', 'cdrom', 'network']) ?? 'hd';
    }),
    bootmenu:
      bootmenu === null
        ? null
        : {
            enable: wordOf(bootmenu, 'enable', yesNo) ?? 'no',
            timeoutMs: integerOf(bootmenu, 'timeout'),
          },
  };
}

function readLoader(element: XmlElement | null, path: string | null): Loader | null {
  if (element === null || path === null) return null;
  return {
    path,
    readonly: wordOf(element, 'readonly', yesNo),
    secure: wordOf(element, 'secure', yesNo),
    type: wordOf(element, 'type', ['pflash', 'rom']),
  };
}

function readFeatures(features: XmlElement | null): readonly Feature[] {
  if (features === null) return [];
  const names = Object.keys(featureNames) as Feature['name'][]; // the table's own keys
  return names.flatMap((name): Feature[] => {
    const given = childNamed(features, name);
    if (given === null) return [];
    const state = featureNames[name] === 'plain' ? null : (wordOf(given, 'state', onOff) ?? 'on');
    return [{ name, state }];
  });
}

function readCpu(cpu: XmlElement | null): Cpu | null {
  if (cpu === null) return null;
  const model = childNamed(cpu, 'model');
  const topology = childNamed(cpu, 'topology');
  const policies = ['force', 'require', 'optional', 'disable', 'forbid'] as const;
  return {
    mode: wordOf(cpu, 'mode', ['custom', 'host-model', 'host-passthrough', 'maximum']),
    match: wordOf(cpu, 'match', ['minimum', 'exact', 'strict']),
    check: wordOf(cpu, 'check', ['none', 'partial', 'full']),
    migratable: wordOf(cpu, 'migratable', onOff),
    model: childText(cpu, 'model'),
    fallback: wordOf(model, 'fallback', ['allow', 'forbid']),
    vendor: childText(cpu, 'vendor'),
    topology:
      topology === null
        ? null
        : {
            sockets: integerOf(topology, 'sockets') ?? 1,
            dies: integerOf(topology, 'dies') ?? 1,
            cores: integerOf(topology, 'cores') ?? 1,
            threads: integerOf(topology, 'threads') ?? 1,
          },
    features: childrenNamed(cpu, 'feature').map((feature) => ({
      name: neededAttribute(feature, 'name'),
      policy: wordOf(feature, 'policy', policies) ?? 'require',
    })),
  };
}

function readClock(clock: XmlElement | null): Clock {
  if (clock === null) return { offset: 'utc', timers: [] };
  const names = ['platform', 'pit', 'rtc', 'hpet', 'tsc', 'kvmclock', 'hypervclock'] as const;
  return {
    offset: wordOf(clock, 'offset', ['utc', 'localtime']) ?? 'utc',
    timers: childrenNamed(clock, 'timer').map((timer) => {
      const name = wordOf(timer, 'name', names);
      if (name === null) throw xmlError('missing timer name');
      return {
        name,
        present: wordOf(timer, 'present', yesNo),
        tickpolicy: wordOf(timer, 'tickpolicy', ['delay', 'catchup', 'merge', 'discard']),
        track: wordOf(timer, 'track', ['boot', 'guest', 'wall']),
      };
    }),
  };
}

function readPm(pm: XmlElement | null): Definition['pm'] {
  if (pm === null) return null;
  return {
    suspendToMem: wordOf(childNamed(pm, 'suspend-to-mem'), 'enabled', yesNo),
    suspendToDisk: wordOf(childNamed(pm, 'suspend-to-disk'), 'enabled', yesNo),
  };
}

function readDevices(given: XmlElement | null, context: ParseContext) {
  const devices = given ?? {
    name: 'devices',
    attributes: {},
    children: [],
    position: { line: 0, column: 0 },
  };
  const all = (name: string): readonly XmlElement[] => childrenNamed(devices, name);
  const balloon = childNamed(devices, 'memballoon');
  return {
    emulator: absolutePath(childText(devices, 'emulator') ?? context.emulator, 'emulator'),
    disks: all('disk').map(readDisk),
    controllers: readControllers(devices),
    interfaces: all('interface').map((device) => readInterface(device, context.newMac)),
    serials: all('serial').map(readSerial),
    consoles: all('console').map(readConsole),
    channels: all('channel').map(readChannel),
    inputs: all('input').map(readInput),
    graphics: all('graphics').map(readGraphics),
    audios: all('audio').map(readAudio),
    videos: all('video').map(readVideo),
    balloon: balloon === null ? null : readBalloon(balloon),
    rngs: all('rng').map(readRng),
  };
}

function readQemu(commandline: XmlElement | null): Pick<Definition, 'qemuArgs' | 'qemuEnv'> {
  if (commandline === null) return { qemuArgs: [], qemuEnv: [] };
  return {
    qemuArgs: childrenNamed(commandline, 'qemu:arg').map((arg) => {
      const value = attributeOf(arg, 'value');
      if (value === null) throw xmlError('No qemu command-line argument specified');
      return value;
    }),
    qemuEnv: childrenNamed(commandline, 'qemu:env').map((env) => {
      const name = neededAttribute(env, 'name');
      if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
        throw xmlError(
          `Invalid environment name, it must begin with a letter or underscore: '${name}'`,
        );
      return { name, value: attributeOf(env, 'value') ?? '' };
    }),
  };
}
