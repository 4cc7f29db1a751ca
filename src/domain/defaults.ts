// What libvirt adds to a definition of its own accord (qemuDomainDefPostParse, virDomainDefAddImplicitDevices), so
// that clients find here what they find there. Addresses are given out later, by `assignDevices`.

import type { Cpu, Definition, ParseContext } from './definition.js';
import type { Balloon, Console, Controller, Input, Serial, Video } from './devices.js';
import { configError } from './values.js';

/** A definition as it was read: the balloon may be missing, everything else only be incomplete. */
export type Draft = Omit<Definition, 'balloon'> & { readonly balloon: Balloon | null };

const nowhere = { alias: null, address: null };

export const isQ35 = (machine: string): boolean =>
  machine === 'q35' || machine.startsWith('pc-q35-');
export const isI440fx = (machine: string): boolean =>
  machine === 'pc' || machine.startsWith('pc-i440fx-');

export function fillDefaults(draft: Draft, context: ParseContext): Definition {
  const machine = context.canonicalMachine(draft.os.machine);
  if (machine === null || !(isQ35(machine) || isI440fx(machine))) {
    throw configError(
      `Emulator '${draft.emulator}' does not support machine type '${draft.os.machine}'`,
    );
  }
  const bootless =
    draft.os.boot.length === 0 &&
    ![...draft.disks, ...draft.interfaces].some((d) => d.bootOrder !== null);
  const withDevices: Draft = {
    ...draft,
    os: { ...draft.os, machine, boot: bootless ? ['hd'] : draft.os.boot },
    disks: inOrder(
      draft.disks,
      ({ bus }) => bus,
      ({ target }) => diskIndex(target),
    ),
    cpu: defaultCpu(draft.cpu, draft.type),
    ...pairConsoles(draft.serials, draft.consoles),
    inputs: withInputs(draft),
    videos: withVideo(draft),
    audios:
      draft.audios.length === 0 && draft.graphics.length > 0
        ? [{ id: 1, type: 'none' }]
        : draft.audios,
  };
  return {
    ...withDevices,
    controllers: orderControllers(withControllers(withDevices)),
    balloon: draft.balloon ?? {
      model: 'virtio',
      statsPeriodSeconds: null,
      autodeflate: null,
      freePageReporting: null,
      ...nowhere,
    },
  };
}

/** Kinds in the order they first come in, each sorted by its number (virDomainDiskInsert, virDomainControllerInsert). */
function inOrder<T>(
  devices: readonly T[],
  kindOf: (device: T) => string,
  numberOf: (device: T) => number,
): readonly T[] {
  const kinds = [...new Set(devices.map(kindOf))];
  const rank = (device: T): number => kinds.indexOf(kindOf(device));
  return devices.toSorted((a, b) => rank(a) - rank(b) || numberOf(a) - numberOf(b));
}

/** A USB 2 controller comes before the companions that share its index. */
export const orderControllers = (controllers: readonly Controller[]): readonly Controller[] =>
  inOrder(
    controllers,
    ({ type }) => type,
    ({ index, masterStartPort }) => index + (masterStartPort === null ? 0 : 0.5),
  );

const noCpu: Cpu = {
  mode: null,
  match: null,
  check: null,
  migratable: null,
  model: null,
  fallback: null,
  vendor: null,
  topology: null,
  features: [],
};

/** qemuDomainDefCPUPostParse: a custom CPU without a model is QEMU's default one, qemu64. */
function defaultCpu(given: Cpu | null, type: Definition['type']): Cpu {
  const cpu = given ?? noCpu;
  const mode = cpu.mode ?? 'custom';
  if (mode === 'custom') {
    const named = cpu.model !== null;
    const check = named && type === 'kvm' ? 'partial' : 'none';
    return {
      ...cpu,
      mode,
      match: cpu.match ?? 'exact',
      check: cpu.check ?? check,
      model: cpu.model ?? 'qemu64',
      fallback: cpu.fallback ?? (named ? 'allow' : 'forbid'),
    };
  }
  if (mode === 'host-model') return { ...cpu, mode, check: cpu.check ?? 'partial' };
  return { ...cpu, mode, check: cpu.check ?? 'none', migratable: cpu.migratable ?? 'on' };
}

/**
 * virDomainDefAddConsoleCompat: a first console of type serial is the other face of the first serial port. Whichever of
 * the two is missing is made from the other.
 */
function pairConsoles(
  serials: readonly Serial[],
  consoles: readonly Console[],
): Pick<Draft, 'serials' | 'consoles'> {
  const [first, ...others] = consoles;
  const faces = first === undefined || first.targetType === 'serial';
  if (first !== undefined && faces && serials.length === 0) {
    return {
      serials: [{ source: first.source, log: first.log, port: 0, ...nowhere }],
      consoles: [{ ...first, port: 0 }, ...others],
    };
  }
  const serial = serials[0];
  if (serial === undefined || !faces) return { serials, consoles };
  const face: Console = {
    targetType: 'serial',
    source: serial.source,
    log: serial.log,
    port: serial.port,
    ...nowhere,
  };
  return { serials, consoles: [face, ...others] };
}

/** A screen comes with a mouse and a keyboard. */
function withInputs(draft: Draft): readonly Input[] {
  if (draft.graphics.length === 0) return draft.inputs;
  const missing = (['mouse', 'keyboard'] as const).filter(
    (type) => !draft.inputs.some((input) => input.type === type && input.bus === 'ps2'),
  );
  return [...draft.inputs, ...missing.map((type): Input => ({ type, bus: 'ps2', ...nowhere }))];
}

/** Video memory in KiB per model; null for a model that chooses its own. */
const vram = {
  vga: 16384,
  cirrus: 16384,
  bochs: 16384,
  virtio: null,
  none: null,
} as const satisfies Record<Video['model'], number | null>;

function withVideo(draft: Draft): readonly Video[] {
  const implicit: Video = {
    model: 'cirrus',
    vramKib: null,
    heads: null,
    primary: true,
    ...nowhere,
  };
  const videos = draft.videos.length === 0 && draft.graphics.length > 0 ? [implicit] : draft.videos;
  const primary = Math.max(
    0,
    videos.findIndex((video) => video.primary),
  );
  return videos.map((video, i) =>
    video.model === 'none'
      ? { ...video, vramKib: null, heads: null, primary: false }
      : {
          ...video,
          vramKib: video.vramKib ?? vram[video.model],
          heads: video.heads ?? 1,
          primary: i === primary,
        },
  );
}

function controller(type: Controller['type'], index: number, model: string | null): Controller {
  return {
    type,
    index,
    model,
    ports: null,
    vectors: null,
    masterStartPort: null,
    modelName: null,
    chassis: null,
    port: null,
    ...nowhere,
  };
}

/** The ones that the machine has anyway, then the ones that devices need. */
function withControllers(draft: Draft): readonly Controller[] {
  const q35 = isQ35(draft.os.machine);
  const usbModel = q35 ? 'qemu-xhci' : 'piix3-uhci';
  const given = draft.controllers.map((one) => {
    if (one.type === 'usb') return { ...one, model: one.model ?? usbModel };
    if (one.type !== 'pci') return one;
    return {
      ...one,
      model: one.model ?? (one.index === 0 ? (q35 ? 'pcie-root' : 'pci-root') : 'pcie-root-port'),
    };
  });
  const implicit: Controller[] = [
    controller('usb', 0, usbModel),
    ...(q35 ? [controller('sata', 0, null)] : []),
    controller('pci', 0, q35 ? 'pcie-root' : 'pci-root'),
  ].filter((one) => !given.some((other) => other.type === one.type && other.index === 0));
  return [...given, ...implicit, ...neededControllers(draft, [...given, ...implicit])];
}

/** Disks per controller: an IDE controller has two channels of two, a SATA controller six ports. */
export const unitsPerController = { ide: 4, sata: 6 } as const;

function neededControllers(draft: Draft, there: readonly Controller[]): readonly Controller[] {
  const needed: Controller[] = [];
  for (const bus of ['ide', 'sata'] as const) {
    const indexes = draft.disks
      .filter((disk) => disk.bus === bus)
      .map((disk) =>
        Number(
          disk.address?.['controller'] ??
            Math.floor(diskIndex(disk.target) / unitsPerController[bus]),
        ),
      );
    for (let index = 0; index <= Math.max(-1, ...indexes); index++)
      needed.push(controller(bus, index, null));
  }
  const ports = [...draft.channels, ...draft.consoles.filter((one) => one.targetType === 'virtio')];
  if (ports.length > 0) needed.push(controller('virtio-serial', 0, null));
  return needed.filter(
    (one) => !there.some((other) => other.type === one.type && other.index === one.index),
  );
}

/** Which disk of its prefix a target is: `vda` 0, `vdz` 25, `vdaa` 26 (virDiskNameToIndex). */
export function diskIndex(target: string): number {
  const letters = target.replace(/^(?:xvd|ubd|[hsvf]d)/, '');
  let index = 0;
  for (const letter of letters) index = index * 26 + (letter.charCodeAt(0) - 96);
  return index - 1;
}
