// A running definition as the command line of its QEMU. Pure. Nothing that a definition says can become an option of its
// own: devices, nodes and objects go as JSON, and in the older `key=value` options every comma is doubled.

import { assert } from '../std/assert.js';
import type { BlockdevOptions } from '../block/node.js';
import { chainOptions, tlsCredsOf, tlsCredsOptions } from '../block/node.js';
import type { Layer } from '../block/layer.js';
import { showSource } from '../block/layer.js';
import { charDevices, deviceOptions, netdevs, objects, vnc } from './commandline-devices.js';
import { isQ35 } from './defaults.js';
import type { Cpu, Definition, Feature, Timer } from './definition.js';
import type { Disk } from './disk.js';
import { imagesOf } from './disk.js';
import { configError } from './values.js';

/** What the host adds to a definition. */
export interface CommandContext {
  readonly qmpSocket: string;
  readonly pidFile: string;
  /** UEFI variables of a domain whose `<nvram>` names no path. */
  readonly nvram: string;
  /** Sockets of channels that name no path lie here. */
  readonly channelDir: string;
  /** QEMU's own seccomp filter. */
  readonly sandbox: boolean;
}

export interface QemuCommand {
  /** Without the emulator itself. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** An option and its value; an empty one is left out. */
type Option = readonly [string, ...string[]];

/** Starts stopped (`-S`); `definition` is a live one: every image has its index, every chain is whole. */
export function qemuCommandLine(definition: Definition, context: CommandContext): QemuCommand {
  const options: readonly Option[] = [
    ['-name', `guest=${escaped(definition.name)},debug-threads=on`],
    ['-S'],
    ...machineOptions(definition, context),
    ['-accel', definition.type === 'kvm' ? 'kvm' : 'tcg'],
    ['-cpu', cpuOption(definition)],
    ['-m', `size=${Math.ceil(definition.memoryKib / 1024)}M`],
    ['-smp', smpOption(definition)],
    ['-uuid', definition.uuid],
    ['-display', 'none'],
    ['-no-user-config'],
    ['-nodefaults'],
    ...(context.sandbox ? [['-sandbox', sandbox] as const] : []),
    ['-pidfile', context.pidFile],
    ['-chardev', `socket,id=charmonitor,path=${escaped(context.qmpSocket)},server=on,wait=off`],
    ['-mon', 'chardev=charmonitor,id=monitor,mode=control'],
    ['-rtc', rtcOption(definition)],
    // What a poweroff of the guest means is the daemon's to decide; a sealed mirror needs QEMU to stay (qemu-block §12).
    ['-no-shutdown'],
    ...(definition.onReboot === 'destroy' ? [['-action', 'reboot=shutdown'] as const] : []),
    ...globals(definition).map((value) => ['-global', value] as const),
    ['-boot', bootOption(definition)],
    ...bootFiles(definition),
    ...tlsFolders(definition).map((folder) =>
      json('-object', tlsCredsOptions(tlsCredsOf(folder), folder)),
    ),
    ...definition.disks.flatMap((disk) => diskNodes(disk).map((node) => json('-blockdev', node))),
    ...netdevs(definition).map((value) => ['-netdev', value] as const),
    ...charDevices(definition, context.channelDir).map((value) => ['-chardev', value] as const),
    ...definition.audios.map(({ id, type }) =>
      json('-audiodev', { id: `audio${id}`, driver: type }),
    ),
    json('-object', ioThreads(definition)),
    ...objects(definition).map((object) => json('-object', object)),
    ...deviceOptions(definition).map((device) => json('-device', device)),
    ...definition.graphics.flatMap((one) => vnc(one, definition.audios[0] ?? null)),
    ['-msg', 'timestamp=on'],
  ];
  const env = Object.fromEntries(definition.qemuEnv.map(({ name, value }) => [name, value]));
  return { argv: [...options.flat(), ...definition.qemuArgs], env };
}

const json = (option: string, value: object): Option => [option, JSON.stringify(value)];

/** A value within `key=value,…`: QEMU reads two commas as one (QemuOpts). */
const escaped = (value: string): string => value.replaceAll(',', ',,');

const sandbox = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';

/** Writes that a mirror has under way at most (QEMU block/mirror.c MAX_IN_FLIGHT), and its flush. */
const IN_FLIGHT_OF_A_MIRROR = 17;

/**
 * A target that hangs holds a thread of QEMU's pool for every write under way. A request of the guest that comes when
 * no other thread stands idle waits behind them, and the guest with it (seen on 7.2: the pool starts no thread for a
 * request while it still counts one as idle that has been promised to another). So there are more from the start.
 */
function ioThreads(definition: Definition): object {
  const mirrors = definition.disks.filter((disk) => !disk.readonly).length;
  const atLeast = mirrors * IN_FLIGHT_OF_A_MIRROR + 8;
  return {
    'qom-type': 'main-loop',
    id: 'main-loop',
    'thread-pool-min': atLeast,
    'thread-pool-max': atLeast + 64,
  };
}

/** Credentials that its disks are opened with. */
function tlsFolders({ disks }: Definition): readonly string[] {
  const sources = disks.flatMap(imagesOf).map(({ source }) => source);
  const folders = sources.flatMap((source) =>
    source.type === 'network' ? (source.tlsCreds ?? []) : [],
  );
  return [...new Set(folders)];
}

/** The nodes of a disk, base first; none for an empty drive. */
export function diskNodes(disk: Disk): readonly BlockdevOptions[] {
  const images = imagesOf(disk);
  assert(images.length === 0 || disk.backing !== null, `the chain of ${disk.target} is not known`);
  refuseOpenEnd(disk);
  const layers = images.map((image): Layer => {
    assert(image.index !== null, `an image of ${disk.target} has no index`);
    return { ...image, index: image.index };
  });
  return chainOptions(layers, disk.driver, disk.readonly);
}

/** Opened with nothing below, an image whose header names something reads as zeroes what it does not hold itself. */
function refuseOpenEnd(disk: Disk): void {
  const last = imagesOf(disk).at(-1);
  if (disk.openEnded !== true || last === undefined || last.format === 'raw') return;
  throw configError(
    `disk '${disk.target}': its <backingStore> ends at ${showSource(last.source)} without an empty <backingStore/> behind it; ` +
      'add that if nothing is below, or leave <backingStore> out to have the headers followed',
  );
}

const stateOf = (definition: Definition, name: Feature['name']): 'on' | 'off' | null => {
  const feature = definition.features.find((one) => one.name === name);
  return feature === undefined ? null : (feature.state ?? 'on');
};

const timerOf = (definition: Definition, name: Timer['name']): Timer | null =>
  definition.clock.timers.find((timer) => timer.name === name) ?? null;

function machineOptions(definition: Definition, context: CommandContext): readonly Option[] {
  const { loader, nvram } = definition.os;
  const flash = loader?.type === 'pflash';
  const vmport = stateOf(definition, 'vmport');
  const smm = stateOf(definition, 'smm');
  const machine = [
    escaped(definition.os.machine),
    'usb=off',
    'dump-guest-core=off',
    vmport === null ? '' : `vmport=${vmport}`,
    smm === null ? '' : `smm=${smm}`,
    stateOf(definition, 'acpi') === null ? 'acpi=off' : '',
    timerOf(definition, 'hpet')?.present === 'no' ? 'hpet=off' : '',
    flash ? 'pflash0=ferry-pflash0' : '',
    flash && nvram !== null ? 'pflash1=ferry-pflash1' : '',
  ];
  const option: Option = ['-machine', machine.filter((part) => part !== '').join(',')];
  if (loader === null) return [option];
  if (!flash) return [option, ['-bios', loader.path]];
  const code = json('-blockdev', flashNode(0, loader.path, loader.readonly !== 'no'));
  if (nvram === null) return [code, option];
  return [code, json('-blockdev', flashNode(1, nvram.path ?? context.nvram, false)), option];
}

function flashNode(unit: number, filename: string, readOnly: boolean): object {
  const node = `ferry-pflash${unit}`;
  const file = { driver: 'file', 'node-name': `${node}-storage`, filename, 'auto-read-only': true };
  return { driver: 'raw', 'node-name': node, 'read-only': readOnly, file };
}

/**
 * The CPU. `host-model` is not expanded into a named model as libvirt does: it is the host's own CPU under KVM and the
 * best one of TCG, which are what the expansion aims at.
 */
function cpuOption(definition: Definition): string {
  const { cpu, type } = definition;
  if (cpu === null) return 'qemu64';
  const model = cpuModel(cpu, type);
  const migratable =
    model === 'host' && cpu.migratable !== null ? [`migratable=${cpu.migratable}`] : [];
  const features = cpu.features.map(
    ({ name, policy }) => `${name}=${policy === 'disable' || policy === 'forbid' ? 'off' : 'on'}`,
  );
  const kvmclock = timerOf(definition, 'kvmclock')?.present;
  const hypervclock = timerOf(definition, 'hypervclock')?.present;
  const clocks = [
    ...(kvmclock == null ? [] : [`kvmclock=${kvmclock === 'yes' ? 'on' : 'off'}`]),
    ...(hypervclock === 'yes' ? ['hv-time=on'] : []),
  ];
  const pmu = stateOf(definition, 'pmu');
  return [
    model,
    ...migratable,
    ...features,
    ...clocks,
    ...(pmu === null ? [] : [`pmu=${pmu}`]),
  ].join(',');
}

function cpuModel(cpu: Cpu, type: Definition['type']): string {
  switch (cpu.mode) {
    case 'maximum':
      return 'max';
    case 'host-model':
    case 'host-passthrough':
      return type === 'kvm' ? 'host' : 'max';
    case 'custom':
    case null:
      return escaped(cpu.model ?? 'qemu64');
  }
}

function smpOption({ vcpus, currentVcpus, cpu }: Definition): string {
  const { sockets, dies, cores, threads } = cpu?.topology ?? {
    sockets: vcpus,
    dies: 1,
    cores: 1,
    threads: 1,
  };
  const hotplug = currentVcpus === null ? '' : `,maxcpus=${vcpus}`;
  return `${currentVcpus ?? vcpus}${hotplug},sockets=${sockets},dies=${dies},cores=${cores},threads=${threads}`;
}

function rtcOption(definition: Definition): string {
  const rtc = timerOf(definition, 'rtc');
  const base = definition.clock.offset === 'localtime' ? 'localtime' : 'utc';
  const clock = rtc?.track === 'guest' ? ',clock=vm' : rtc?.track === 'wall' ? ',clock=host' : '';
  return `base=${base}${clock}${rtc?.tickpolicy === 'catchup' ? ',driftfix=slew' : ''}`;
}

function globals(definition: Definition): readonly string[] {
  const { pm, os } = definition;
  const bridge = isQ35(os.machine) ? 'ICH9-LPC' : 'PIIX4_PM';
  const suspend = (
    state: 's3' | 's4',
    enabled: 'yes' | 'no' | null | undefined,
  ): readonly string[] =>
    enabled == null ? [] : [`${bridge}.disable_${state}=${enabled === 'no' ? 1 : 0}`];
  const pit = timerOf(definition, 'pit')?.tickpolicy;
  const pitPolicy = pit === 'delay' || pit === 'discard' ? [`kvm-pit.lost_tick_policy=${pit}`] : [];
  return [
    ...suspend('s3', pm?.suspendToMem),
    ...suspend('s4', pm?.suspendToDisk),
    // TCG has no lost ticks to make up for.
    ...(definition.type === 'kvm' ? pitPolicy : []),
    ...(os.loader?.secure === 'yes' ? ['driver=cfi.pflash01,property=secure,value=on'] : []),
  ];
}

function bootOption({ os: { bootmenu } }: Definition): string {
  if (bootmenu === null) return 'strict=on';
  const on = bootmenu.enable === 'yes';
  const splash = on && bootmenu.timeoutMs !== null ? `,splash-time=${bootmenu.timeoutMs}` : '';
  return `menu=${on ? 'on' : 'off'}${splash},strict=on`;
}

function bootFiles({ os }: Definition): readonly Option[] {
  return [
    ...(os.kernel === null ? [] : [['-kernel', os.kernel] as const]),
    ...(os.initrd === null ? [] : [['-initrd', os.initrd] as const]),
    ...(os.cmdline === null ? [] : [['-append', os.cmdline] as const]),
  ];
}
