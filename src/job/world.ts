// The world as the effects of one domain's plans see it. The host gives the real one, tests one over the fake QEMU.

import type { Fuse } from '../block/fuse.js';
import type { Definition } from '../domain/definition.js';
import type { DomainRecord } from '../domain/record.js';
import type { ImageStore } from '../image/store.js';
import type { Agent } from '../qmp/agent.js';
import type { Monitor } from '../qmp/monitor.js';
import type { QemuStart } from '../plan/step.js';
import { QemuError } from '../std/errors.js';

/** A process, beyond doubt: pids are used again, a pid with its start time is not. */
export interface Identity {
  readonly pid: number;
  readonly startTicks: number;
}

/** What stands between a QEMU and its NBD servers. */
export interface Fuses {
  /** Resolves when it is connected and listens. A former one of its names is ended. */
  start(fuse: Fuse): Promise<void>;
  /** Gone already is fine. */
  end(fuse: Pick<Fuse, 'pidFile' | 'socket' | 'stateFile'>): Promise<void>;
  /** @throws {QemuError} it is not connected to its server as it was at its start: what was written may be lost. */
  check(fuse: Fuse): Promise<void>;
  /** As `check`, and a flush comes back. @throws {BusyError} not within `timeoutMs`. */
  answer(fuse: Fuse, timeoutMs: number): Promise<void>;
}

/** What the host does for one domain. */
export interface DomainWorld {
  readonly images: ImageStore;
  readonly fuses: Fuses;
  /** The domain as it is known now. */
  record(): Promise<DomainRecord | null>;
  /** Null: its QEMU is gone, or never was. */
  monitor(): Promise<Monitor | null>;
  /** The agent in its guest; null: it has no channel to one. */
  agent(): Promise<Agent | null>;
  /** `definition` with what QEMU chose at its start: terminals, ports. */
  asStarted(definition: Definition): Promise<Definition>;
  /** Starts QEMU with its CPUs stopped; resolves when its monitor answers. Finding it started already is success. */
  startQemu(start: QemuStart): Promise<void>;
  /** The process that the pid file names, if it is this domain's QEMU and alive (a zombie is dead). */
  identify(pidFile: string): Promise<Identity | null>;
  /** Ends the process and waits until it is no more. Gone already is fine. */
  killQemu(pidFile: string): Promise<void>;
  /** Copies UEFI variables from their template; with `keep` not over what is there. */
  createNvram(path: string, template: string, how: 'keep' | 'reset'): Promise<void>;
}

/** Whether the guest stands still, if it does, only because of us; one that its user suspended does not. */
export const isToRun = async (world: DomainWorld): Promise<boolean> =>
  (await world.record())?.live?.state.state === 'running';

export async function needMonitor(world: DomainWorld, doing: string): Promise<Monitor> {
  const monitor = await world.monitor();
  if (monitor === null) throw new QemuError(`${doing}: QEMU is gone`, { qmpClass: 'Gone' });
  return monitor;
}

/** Does `body` when QEMU is there; what is gone with it needs no undoing. */
export async function ifAlive(
  world: DomainWorld,
  body: (monitor: Monitor) => Promise<void>,
): Promise<void> {
  const monitor = await world.monitor();
  if (monitor === null) return;
  try {
    await body(monitor);
  } catch (error) {
    if ((await world.monitor()) === null) return;
    throw error;
  }
}
