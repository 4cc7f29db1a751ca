// What all parts of a host share: where things lie, what is remembered, and who is told.

import { EventEmitter } from 'node:events';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { DomainRecord, ImageRole } from '../domain/record.js';
import type { ImageStore } from '../image/store.js';
import type { Applied, AppliedChange, Journal } from '../journal/journal.js';
import { NotFoundError } from '../std/errors.js';
import type { RunAs } from './process.js';

export interface HostConfig {
  readonly runDir: string;
  readonly stateDir: string;
  /** Default `<emulator>`. */
  readonly emulator: string;
  readonly qemuUser: RunAs | null;
  /** QEMU's seccomp filter (`-sandbox on`). */
  readonly sandbox: boolean;
  readonly log: Logger;
  readonly nowMs: () => number;
  readonly newUuid: () => string;
}

/** What one transaction made of a domain, as listeners get it. */
export interface Told {
  readonly before: DomainRecord | null;
  readonly after: DomainRecord | null;
  readonly domain: string;
  readonly changes: readonly AppliedChange[];
}

/** What is known, in memory: a copy of the journal's records that its commits keep true. */
export class Known {
  readonly journal: Journal;
  private readonly records = new Map<string, DomainRecord>();
  private readonly byName = new Map<string, string>();
  private roleList: readonly ImageRole[] = [];
  private readonly emitter = new EventEmitter<{ told: [Told] }>();

  private constructor(journal: Journal) {
    this.journal = journal;
    this.emitter.setMaxListeners(0);
  }

  static async over(journal: Journal): Promise<Known> {
    const known = new Known(journal);
    for (const record of await journal.domains()) known.put(record.uuid, record);
    known.roleList = await journal.roles();
    journal.onApplied((applied) => known.apply(applied));
    return known;
  }

  all(): readonly DomainRecord[] {
    return [...this.records.values()];
  }

  roles(): readonly ImageRole[] {
    return this.roleList;
  }

  find(uuid: string): DomainRecord | null {
    return this.records.get(uuid) ?? null;
  }

  named(name: string): DomainRecord | null {
    return this.find(this.byName.get(name) ?? '');
  }

  /** @throws {NotFoundError} as libvirt words it. */
  domain(uuid: string): DomainRecord {
    const record = this.find(uuid);
    if (record === null)
      throw new NotFoundError('NO_DOMAIN', `no domain with matching uuid '${uuid}'`);
    return record;
  }

  /** Called after each commit, in order, before the verb that caused it resolves. */
  onTold(listener: (told: Told) => void): () => void {
    this.emitter.on('told', listener);
    return () => this.emitter.off('told', listener);
  }

  private apply(applied: Applied): void {
    this.put(applied.domain, applied.after);
    for (const { change } of applied.changes) {
      if (change.change === 'role')
        this.roleList = [
          ...this.roleList.filter((role) => role.path !== change.role.path),
          change.role,
        ];
      if (change.change === 'forget-role')
        this.roleList = this.roleList.filter((role) => role.path !== change.path);
    }
    this.emitter.emit('told', applied);
  }

  private put(uuid: string, record: DomainRecord | null): void {
    const before = this.records.get(uuid);
    if (before !== undefined) this.byName.delete(before.name);
    if (record === null) {
      this.records.delete(uuid);
      return;
    }
    this.records.set(uuid, record);
    this.byName.set(record.name, uuid);
  }
}

export interface HostContext {
  readonly config: HostConfig;
  readonly known: Known;
  readonly images: ImageStore;
}

/** Where the files of one domain's QEMU lie. By uuid: short enough for a socket, and the same after a restart. */
export function filesOf(config: HostConfig, uuid: string, name: string) {
  return {
    qmpSocket: join(config.runDir, 'qemu', `${uuid}.qmp`),
    pidFile: join(config.runDir, 'qemu', `${uuid}.pid`),
    channelDir: join(config.runDir, 'qemu'),
    /** Of fuses, before their number (`endFusesOf` finds them by it). */
    fusePrefix: join(config.runDir, 'qemu', `${uuid}.fuse-`),
    logFile: join(config.stateDir, 'log', `${name}.log`),
    nvram: join(config.stateDir, 'nvram', `${name}_VARS.fd`),
  } as const;
}
