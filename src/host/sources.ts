// What becomes of the sources of moves: deleted when the move has ended or when their time is over, by a plan of its own
// that is journaled then. A time that came while no ferryd ran has come when the next one starts.

import type { OperationRecord } from '../journal/journal.js';
import { messageOf } from '../std/errors.js';
import type { SaidFate, SaidFates } from './fates.js';
import { keptUntilMs, readFates, writeFates } from './fates.js';
import { deleteSource } from './gc/source.js';
import type { Host } from './host.js';

/** More than the journal keeps. */
const ALL = 1_000_000;
/** Something else goes on about the domain, or the last try failed. */
const AGAIN_MS = 10_000;

export class Sources {
  private readonly host: Host;
  private fates = new Map<number, SaidFate>();
  /** By number of the move: when it is time to look at it. */
  private readonly due = new Map<number, number>();
  private timer: NodeJS.Timeout | null = null;
  private isLooking = false;

  constructor(host: Host) {
    this.host = host;
  }

  /** What was said; before any operation goes on. */
  async load(): Promise<void> {
    this.fates = new Map(await readFates(this.host.known.journal));
  }

  get said(): SaidFates {
    return this.fates;
  }

  /** Looks for sources whose time is over, every `everyMs`. */
  start(everyMs: number): void {
    void this.findAll().catch((error: unknown) =>
      this.host.log.error({ error: messageOf(error) }, 'which sources are to be deleted'),
    );
    this.timer = setInterval(() => void this.lookAtDue(), everyMs).unref();
  }

  close(): void {
    if (this.timer !== null) clearInterval(this.timer);
  }

  /** A move has ended: what was to go with its end goes now. Never rejects. */
  async ended(move: OperationRecord): Promise<void> {
    if (move.kind !== 'move' || move.outcome !== 'committed') return;
    this.note(move);
    await this.attempt(move.id);
  }

  /** Durable when it resolves. */
  async say(move: OperationRecord, fate: Exclude<SaidFate, 'over'>): Promise<void> {
    await this.put(move.id, fate);
    if (move.endedAtMs !== null) this.note(move);
  }

  private note(move: OperationRecord): void {
    const until = keptUntilMs(move, this.fates.get(move.id) ?? null);
    if (until === null) this.due.delete(move.id);
    else this.due.set(move.id, until);
  }

  private isDue(move: OperationRecord, now: number): boolean {
    return (keptUntilMs(move, this.fates.get(move.id) ?? null) ?? Infinity) <= now;
  }

  private async put(id: number, fate: SaidFate): Promise<void> {
    const next = new Map(this.fates).set(id, fate);
    await writeFates(this.host.known.journal, next);
    this.fates = next;
  }

  /** Those that a former daemon knew of. */
  private async findAll(): Promise<void> {
    const { journal } = this.host.known;
    const all = await journal.operations({ limit: ALL });
    for (const { id, kind, outcome } of all) {
      if (kind !== 'move' || outcome !== 'committed' || this.fates.get(id) === 'over') continue;
      const move = await journal.operation(id);
      if (move !== null) this.note(move);
      // The daemon has guests to see to meanwhile.
      await new Promise((resolve) => setImmediate(resolve));
    }
    const forgotten = [...this.fates.keys()].filter((id) => all.every((one) => one.id !== id));
    for (const id of forgotten) this.fates.delete(id);
  }

  private async lookAtDue(): Promise<void> {
    if (this.isLooking) return;
    this.isLooking = true;
    for (const id of this.due.keys()) await this.attempt(id);
    this.isLooking = false;
  }

  private async attempt(id: number): Promise<void> {
    const { host } = this;
    const now = host.context.config.nowMs();
    if ((this.due.get(id) ?? Infinity) > now) return;
    // Nobody else tries meanwhile, and what fails is not tried every second.
    this.due.set(id, now + AGAIN_MS);
    try {
      const move = await host.known.journal.operation(id);
      const open = await host.known.journal.openOperations();
      if (move !== null && open.some(({ domain }) => domain === move.domain)) return;
      if (move !== null) await deleteSource(host, move, () => this.isDue(move, now));
      await this.put(id, 'over');
      this.due.delete(id);
    } catch (error) {
      host.log.warn({ operation: id, error: messageOf(error) }, 'the source of a move stays');
    }
  }
}
