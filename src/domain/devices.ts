// The devices of a domain other than its disks, as libvirt's XML has them. One type for what was defined and for what
// runs: `alias` is printed for a running domain only, and so is what a start allocates (pty paths, the VNC port).

import type { DeviceAddress } from './disk.js';

/** What every device may carry. */
export interface DeviceInfo {
  readonly alias: string | null;
  readonly address: DeviceAddress | null;
}

export type ControllerType = 'usb' | 'pci' | 'ide' | 'sata' | 'virtio-serial';

export interface Controller extends DeviceInfo {
  readonly type: ControllerType;
  readonly index: number;
  readonly model: string | null;
  /** usb: ports of a hub or qemu-xhci; virtio-serial: ports. */
  readonly ports: number | null;
  readonly vectors: number | null;
  /** usb companions: the first port of the EHCI controller they serve. */
  readonly masterStartPort: number | null;
  /** `<model name=>` of a PCI controller, as libvirt adds it. */
  readonly modelName: string | null;
  readonly chassis: number | null;
  /** Port of a PCIe root port, written `0x10` in the XML. */
  readonly port: number | null;
}

export type InterfaceModel = 'virtio' | 'e1000' | 'e1000e' | 'rtl8139';

export interface Interface extends DeviceInfo {
  /** `ethernet`: a tap device that exists already, named by `targetDev`. */
  readonly type: 'user' | 'ethernet';
  readonly mac: string;
  readonly targetDev: string | null;
  /** `managed='no'`: the tap is the user's own and is not created. Null: not said. */
  readonly targetManaged: 'yes' | 'no' | null;
  readonly model: InterfaceModel;
  readonly link: 'up' | null;
  readonly bootOrder: number | null;
}

/** The host side of a serial port, console or channel. */
export type CharSource =
  /** `path` is known while running only. */
  | { readonly type: 'pty'; readonly path: string | null }
  | { readonly type: 'file'; readonly path: string; readonly append: 'on' | 'off' | null }
  /** `path` null: chosen at start, below the run directory. */
  | { readonly type: 'unix'; readonly mode: 'bind' | 'connect'; readonly path: string | null }
  | { readonly type: 'null' };

export interface CharLog {
  readonly file: string;
  readonly append: 'on' | 'off' | null;
}

export interface Serial extends DeviceInfo {
  readonly source: CharSource;
  readonly log: CharLog | null;
  readonly port: number;
}

export interface Console extends DeviceInfo {
  /** `serial`: the other face of serial port `port`; it has that port's source and no device of its own. */
  readonly targetType: 'serial' | 'virtio';
  readonly source: CharSource;
  readonly log: CharLog | null;
  readonly port: number;
}

export interface Channel extends DeviceInfo {
  readonly source: CharSource;
  readonly log: CharLog | null;
  /** Port name seen in the guest, such as `org.qemu.guest_agent.0`. */
  readonly name: string;
  /** Set by the guest opening and closing the port; printed while running. */
  readonly state: 'connected' | 'disconnected' | null;
}

export interface Input extends DeviceInfo {
  readonly type: 'tablet' | 'mouse' | 'keyboard';
  readonly bus: 'usb' | 'ps2' | 'virtio';
}

export interface Graphics {
  readonly type: 'vnc';
  /** Null: chosen at start (`autoport`), or chosen and unknown yet. */
  readonly port: number | null;
  readonly autoport: boolean;
  /** Null: the daemon's default, 127.0.0.1. */
  readonly listen: string | null;
  readonly keymap: string | null;
}

export interface Audio {
  readonly id: number;
  readonly type: 'none';
}

export interface Video extends DeviceInfo {
  readonly model: 'vga' | 'cirrus' | 'bochs' | 'virtio' | 'none';
  readonly vramKib: number | null;
  readonly heads: number | null;
  readonly primary: boolean;
}

export interface Balloon extends DeviceInfo {
  readonly model: 'virtio' | 'none';
  readonly statsPeriodSeconds: number | null;
  readonly autodeflate: 'on' | 'off' | null;
  readonly freePageReporting: 'on' | 'off' | null;
}

export interface Rng extends DeviceInfo {
  readonly backend: string;
  readonly rateBytes: number | null;
  readonly ratePeriodMs: number | null;
}
