// How much older than the live image each stale image is: the time, and what the guest has written to the disk since.
// QEMU counts what a disk was written from its start on; here is kept where that count was at the switch, and what the
// QEMUs before this one had come to. What nobody saw (a QEMU that died after it was last asked) makes it `at least`.

import type { ImageRole } from '../domain/record.js';
import type { Older } from '../domain/source-fate.js';
import type { Journal } from '../journal/journal.js';
import { messageOf } from '../std/errors.js';
import type { Told } from './context.js';
import { writtenBytes } from './disk-stats.js';
import type { Host } from './host.js';

/** What was written to one disk since it switched away from some image. */
interface Count {
  readonly domain: string;
  readonly target: string;
  readonly sinceSeconds: number;
  /** By QEMUs that are gone. */
  readonly beforeBytes: bigint;
  /** By the one of now, whose count was at `fromBytes`; null: none runs, or it was not asked yet. */
  readonly life: {
    readonly id: number;
    readonly fromBytes: bigint;
    readonly lastBytes: bigint;
  } | null;
  readonly isAtLeast: boolean;
}

type Which = Pick<ImageRole, 'domain' | 'target' | 'sinceSeconds'>;

export type Counts = ReadonlyMap<string, Count>;

const keyOf = ({ domain, target, sinceSeconds }: Which): string =>
  `${domain} ${target} ${sinceSeconds}`;

const KEY = 'written';

/** As the journal has them. */
export async function readCounts(journal: Pick<Journal, 'setting'>): Promise<Counts> {
  const text = await journal.setting(KEY);
  const all = text === null ? [] : (JSON.parse(text, revived) as Count[]); // what `printed` made
  return new Map(all.map((count) => [keyOf(count), count]));
}

const printed = (counts: Counts): string =>
  JSON.stringify([...counts.values()], (_, value: unknown) =>
    typeof value === 'bigint' ? value.toString() : value,
  );

const revived = (key: string, value: unknown): unknown =>
  key.endsWith('Bytes') ? BigInt(String(value)) : value;

/** For who looks without a daemon, and cannot ask: what was written since is not in it. */
export function atLeastOlderOf(counts: Counts, role: ImageRole, nowSeconds: number): Older {
  const older = olderOf(counts, role, nowSeconds);
  return { ...older, isAtLeast: older.writtenBytes !== null };
}

function olderOf(counts: Counts, role: ImageRole, nowSeconds: number): Older {
  const count = counts.get(keyOf(role));
  return {
    seconds: Math.max(0, nowSeconds - role.sinceSeconds),
    writtenBytes: count === undefined ? null : soFar(count),
    isAtLeast: count?.isAtLeast === true,
  };
}

const soFar = ({ beforeBytes, life }: Count): bigint =>
  beforeBytes + (life === null ? 0n : life.lastBytes - life.fromBytes);

/** The QEMU of now was asked, and its count is at `bytes`. */
export function afterLook(count: Count, id: number, bytes: bigint): Count {
  const { life } = count;
  // It is asked for the first time: what it wrote before that was not seen.
  if (life === null) return { ...count, life: { id, fromBytes: bytes, lastBytes: bytes } };
  if (life.id !== id || bytes < life.lastBytes)
    return { ...afterLife(count), life: { id, fromBytes: 0n, lastBytes: bytes } };
  return { ...count, life: { ...life, lastBytes: bytes } };
}

/** Its QEMU is gone, and may have written after it was last asked. */
export const afterLife = (count: Count): Count => ({
  ...count,
  beforeBytes: soFar(count),
  life: null,
  isAtLeast: true,
});

export class Ages {
  private readonly host: Host;
  private counts = new Map<string, Count>();
  private timer: NodeJS.Timeout | null = null;
  private saved = '[]';

  constructor(host: Host) {
    this.host = host;
  }

  /** Reads what was counted, and counts on from there. */
  async load(): Promise<void> {
    const { known } = this.host;
    this.counts = new Map(await readCounts(known.journal));
    this.saved = printed(this.counts);
    for (const [key, count] of this.counts) {
      const id = known.find(count.domain)?.live?.id ?? null;
      // With the same QEMU nothing is missed: it counted on without us.
      const wasRunning = count.life !== null;
      if (wasRunning && count.life.id !== id) this.counts.set(key, afterLife(count));
    }
    for (const role of known.roles()) this.take(role, true);
    known.onTold((told) => this.told(told));
  }

  /** Asks now and then, so that little is missed when a QEMU dies. */
  start(everyMs: number): void {
    this.timer = setInterval(() => void this.lookAtAll(), everyMs).unref();
  }

  close(): void {
    if (this.timer !== null) clearInterval(this.timer);
  }

  of(role: ImageRole): Older {
    return olderOf(this.counts, role, this.host.nowSeconds);
  }

  /** Asks the QEMU of a domain what its disks were written until now. Never rejects. */
  async look(uuid: string): Promise<void> {
    const mine = [...this.counts].filter(([, { domain }]) => domain === uuid);
    const id = this.host.known.find(uuid)?.live?.id ?? null;
    if (mine.length === 0 || id === null) return;
    try {
      const written = await writtenBytes(this.host, uuid);
      for (const [key] of mine) {
        const count = this.counts.get(key);
        const bytes = written.get(count?.target ?? '');
        if (count !== undefined && bytes !== undefined)
          this.counts.set(key, afterLook(count, id, bytes));
      }
    } catch (error) {
      this.host.log.debug({ domain: uuid, error: messageOf(error) }, 'what disks were written');
    }
  }

  async lookAtAll(): Promise<void> {
    const domains = new Set([...this.counts.values()].map(({ domain }) => domain));
    for (const uuid of domains) await this.look(uuid);
    await this.save();
  }

  /** Called in the commit that made it so; while a guest stands still in a pivot, what it has written does not grow. */
  private told({ domain, before, after, changes }: Told): void {
    let isNew = false;
    for (const { change } of changes)
      if (change.change === 'role' && this.take(change.role, false)) isNew = true;
    const [was, is] = [before?.live?.id ?? null, after?.live?.id ?? null];
    if (was !== is)
      for (const [key, count] of this.counts)
        if (count.domain === domain)
          this.counts.set(key, withLife(was === null ? count : afterLife(count), is));
    if (isNew || was !== is) void this.look(domain).then(async () => await this.save());
  }

  /** Whether it is one that was not there yet. */
  private take(role: ImageRole, isLate: boolean): boolean {
    const key = keyOf(role);
    if (role.role !== 'stale' || this.counts.has(key)) return false;
    const { domain, target, sinceSeconds } = role;
    const common = { domain, target, sinceSeconds, beforeBytes: 0n, life: null };
    this.counts.set(key, { ...common, isAtLeast: isLate });
    return true;
  }

  private async save(): Promise<void> {
    const wanted = new Set(this.host.known.roles().map(keyOf));
    for (const key of this.counts.keys()) if (!wanted.has(key)) this.counts.delete(key);
    const text = printed(this.counts);
    if (text === this.saved) return;
    this.saved = text;
    await this.host.known.journal.putSetting(KEY, text).catch((error: unknown) => {
      this.saved = '';
      this.host.log.warn({ error: messageOf(error) }, 'what disks were written is not kept');
    });
  }
}

/** A QEMU that has just begun has written nothing. */
const withLife = (count: Count, id: number | null): Count =>
  id === null ? count : { ...count, life: { id, fromBytes: 0n, lastBytes: 0n } };
