// What a domain is: libvirt's `<domain>`, parsed. Pure data; one value for the persistent definition and one for the
// running domain, which differ only in what a start adds (aliases, indexes, chains, mirrors, allocated ports).

import type { XmlElement } from '../xml/tree.js';
import type {
  Audio,
  Balloon,
  Channel,
  Console,
  Controller,
  Graphics,
  Input,
  Interface,
  Rng,
  Serial,
  Video,
} from './devices.js';
import type { Disk } from './disk.js';

export interface Loader {
  readonly path: string;
  readonly readonly: 'yes' | 'no' | null;
  readonly type: 'pflash' | 'rom' | null;
  readonly secure: 'yes' | 'no' | null;
}

/** UEFI variables. `path` null: the daemon chooses one below its state directory. */
export interface Nvram {
  readonly template: string | null;
  readonly path: string | null;
}

export interface Os {
  readonly arch: string;
  /** The canonical name, such as `pc-i440fx-7.2`, once `canonicalMachine` was given to the parser. */
  readonly machine: string;
  readonly loader: Loader | null;
  readonly nvram: Nvram | null;
  readonly kernel: string | null;
  readonly initrd: string | null;
  readonly cmdline: string | null;
  readonly boot: readonly ('hd' | 'cdrom' | 'network')[];
  readonly bootmenu: { readonly enable: 'yes' | 'no'; readonly timeoutMs: number | null } | null;
}

/** `state` null: the element stands for itself, as in `<acpi/>`. */
export interface Feature {
  readonly name: 'acpi' | 'apic' | 'pae' | 'hap' | 'pmu' | 'vmport' | 'smm' | 'vmcoreinfo';
  readonly state: 'on' | 'off' | null;
}

export interface CpuFeature {
  readonly name: string;
  readonly policy: 'force' | 'require' | 'optional' | 'disable' | 'forbid' | null;
}

export interface Cpu {
  readonly mode: 'custom' | 'host-model' | 'host-passthrough' | 'maximum' | null;
  readonly match: 'minimum' | 'exact' | 'strict' | null;
  readonly check: 'none' | 'partial' | 'full' | null;
  readonly migratable: 'on' | 'off' | null;
  readonly model: string | null;
  readonly fallback: 'allow' | 'forbid' | null;
  readonly vendor: string | null;
  readonly topology: {
    readonly sockets: number;
    readonly dies: number;
    readonly cores: number;
    readonly threads: number;
  } | null;
  readonly features: readonly CpuFeature[];
}

export interface Timer {
  readonly name: 'platform' | 'pit' | 'rtc' | 'hpet' | 'tsc' | 'kvmclock' | 'hypervclock';
  readonly present: 'yes' | 'no' | null;
  readonly tickpolicy: 'delay' | 'catchup' | 'merge' | 'discard' | null;
  readonly track: 'boot' | 'guest' | 'wall' | null;
}

export interface Clock {
  readonly offset: 'utc' | 'localtime';
  readonly timers: readonly Timer[];
}

export type LifecycleAction = 'destroy' | 'restart' | 'preserve';

export interface Definition {
  readonly type: 'kvm' | 'qemu';
  readonly name: string;
  readonly uuid: string;
  readonly title: string | null;
  readonly description: string | null;
  /** `<metadata>` as it was given; its children belong to whoever wrote them. */
  readonly metadata: XmlElement | null;
  readonly memoryKib: number;
  readonly currentMemoryKib: number;
  readonly vcpus: number;
  /** `<vcpu current=>`: how many are plugged at start; null when all are. */
  readonly currentVcpus: number | null;
  readonly os: Os;
  readonly features: readonly Feature[];
  readonly cpu: Cpu | null;
  readonly clock: Clock;
  readonly onPoweroff: LifecycleAction;
  readonly onReboot: LifecycleAction;
  readonly onCrash: LifecycleAction;
  readonly pm: {
    readonly suspendToMem: 'yes' | 'no' | null;
    readonly suspendToDisk: 'yes' | 'no' | null;
  } | null;
  readonly emulator: string;
  readonly disks: readonly Disk[];
  readonly controllers: readonly Controller[];
  readonly interfaces: readonly Interface[];
  readonly serials: readonly Serial[];
  readonly consoles: readonly Console[];
  readonly channels: readonly Channel[];
  readonly inputs: readonly Input[];
  readonly graphics: readonly Graphics[];
  readonly audios: readonly Audio[];
  readonly videos: readonly Video[];
  readonly balloon: Balloon;
  readonly rngs: readonly Rng[];
  /** `<qemu:commandline>`: added behind everything of ours. */
  readonly qemuArgs: readonly string[];
  readonly qemuEnv: readonly { readonly name: string; readonly value: string }[];
}

/** Facts of this host that a definition is completed with. */
export interface ParseContext {
  /** For a definition without `<uuid>`, and the MAC addresses of interfaces without one. */
  readonly newUuid: () => string;
  readonly newMac: () => string;
  /** Default of `<emulator>`. */
  readonly emulator: string;
  /** `pc` → `pc-i440fx-7.2`; a name that the emulator does not know is null. */
  readonly canonicalMachine: (machine: string) => string | null;
}

/** The disk that `pathOrTarget` names: by source path when it starts with `/`, else by `<target dev=>`. Null: none. */
export function findDisk(definition: Definition, pathOrTarget: string): Disk | null {
  const wanted = (disk: Disk): boolean => {
    if (!pathOrTarget.startsWith('/')) return disk.target === pathOrTarget;
    return (
      disk.source !== null && disk.source.type !== 'network' && disk.source.path === pathOrTarget
    );
  };
  return definition.disks.find(wanted) ?? null;
}
