// The test guest: its files, its parameters, and the libvirt XML of a domain that runs it.

import { join } from 'node:path';

import { must, root } from './process.js';
import { testQemus } from './qemu.js';

export interface GuestFiles {
  readonly kernel: string;
  readonly initramfs: string;
  readonly verify: string;
}

let built: Promise<GuestFiles> | null = null;

/** Builds the guest where that is needed, once a process. */
export async function guestFiles(): Promise<GuestFiles> {
  built ??= build();
  return await built;
}

async function build(): Promise<GuestFiles> {
  const out = join(root, '.cache/guest');
  await must(join(root, 'guest/build.sh'), [out]);
  return {
    kernel: join(out, 'kernel'),
    initramfs: join(out, 'initramfs'),
    verify: join(out, 'verify'),
  };
}

/** Parameters of the guest's writer, as guest/writer.c describes them; the number of disks is added by who knows it. */
export type Writer = Readonly<
  Partial<
    Record<
      | 'span'
      | 'sync'
      | 'seed'
      | 'delay'
      | 'count'
      | 'start'
      | 'resume'
      | 'stat'
      | 'idle'
      | 'stay'
      | 'keepgoing'
      | 'agent'
      | 'unused',
      number
    >
  >
>;

/** What a kernel under emulation should not believe, need not test at each boot, and patches itself for at length. */
const emulated = ['tsc=unstable', 'cryptomgr.notests', 'mitigations=off', 'nokaslr'];

export function kernelCommandLine(disks: number, writer: Writer): string {
  const parameters = Object.entries({ disks, ...writer }).map(
    ([name, value]) => `w.${name}=${value}`,
  );
  return ['console=ttyS0 quiet loglevel=1 panic=-1', ...emulated, ...parameters].join(' ');
}

export interface DomainDisk {
  readonly file: string;
  readonly format?: 'qcow2' | 'raw';
  /** Default: vda, vdb, … in order, which is what the writer expects. */
  readonly target?: string;
}

export interface DomainOptions {
  readonly name: string;
  readonly uuid?: string;
  readonly disks: readonly DomainDisk[];
  readonly writer?: Writer;
  /** File that the serial line is appended to; for SerialWatch. */
  readonly serialFile: string;
  readonly memoryMiB?: number;
  readonly vcpus?: number;
  readonly emulator?: string;
  /** Further XML inside `<devices>`. */
  readonly devices?: string;
  /** Further XML inside `<domain>`. */
  readonly extra?: string;
}

/** The libvirt XML of a domain that runs the writing guest, without KVM. */
export async function domainXml(options: DomainOptions): Promise<string> {
  const { name, uuid, disks, writer = {}, serialFile, memoryMiB = 96, vcpus = 1 } = options;
  const { kernel, initramfs } = await guestFiles();
  return `<domain type='qemu'>
  <name>${name}</name>
${uuid === undefined ? '' : `  <uuid>${uuid}</uuid>\n`}  <memory unit='MiB'>${memoryMiB}</memory>
  <vcpu>${vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>${kernel}</kernel>
    <initrd>${initramfs}</initrd>
    <cmdline>${kernelCommandLine(disks.length, writer)}</cmdline>
  </os>
  <features>
    <acpi/>
  </features>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>${options.emulator ?? testQemus()[0].system}</emulator>
${disks.map(diskXml).join('\n')}
    <serial type='file'>
      <source path='${serialFile}' append='on'/>
      <target port='0'/>
    </serial>
    <memballoon model='none'/>
${options.devices ?? ''}  </devices>
${options.extra ?? ''}</domain>
`;
}

function diskXml({ file, format = 'qcow2', target }: DomainDisk, index: number): string {
  return `    <disk type='file' device='disk'>
      <driver name='qemu' type='${format}'/>
      <source file='${file}'/>
      <target dev='${target ?? `vd${String.fromCodePoint(97 + index)}`}' bus='virtio'/>
    </disk>`;
}
