// Work that stopped because the journal could not be written. Guests are not disturbed by that, but one may stand still
// in the middle of a switch; so it is tried again, soon and without end, until the journal takes it.

import { BusyError, JournalError, messageOf } from '../std/errors.js';
import type { Host } from './host.js';

/** A guest may wait for this, so soon at first. */
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 4000;

export class Interrupted {
  private readonly host: Host;
  /** By number of the operation. */
  private readonly operations = new Map<
    number,
    { readonly uuid: string; readonly error: JournalError }
  >();
  /** Domains whose QEMU told something that could not be written down. */
  private readonly looks = new Set<string>();
  private readonly listeners = new Set<(trouble: string | null) => void>();
  private timer: NodeJS.Timeout | null = null;
  private delayMs = FIRST_RETRY_MS;

  constructor(host: Host) {
    this.host = host;
  }

  /** An operation stopped half-way. Called under the lock of its domain, so that nobody comes in between. */
  operation(uuid: string, error: JournalError): void {
    if (error.operation !== null) this.operations.set(error.operation, { uuid, error });
    this.trouble(error);
  }

  /** A look at a domain failed; if that was the journal's fault it is repeated. */
  look(uuid: string, error: unknown): void {
    if (error instanceof JournalError) this.looks.add(uuid);
    this.trouble(error);
  }

  /** If `error` is the journal's: waits until that is over. */
  trouble(error: unknown): void {
    if (!(error instanceof JournalError) || this.timer !== null) return;
    this.host.log.error({ error: messageOf(error) }, 'the journal is in trouble');
    for (const listener of this.listeners) listener(messageOf(error));
    this.later();
  }

  /** The operation of a domain that waits here; null: none. */
  of(uuid: string): number | null {
    for (const [id, one] of this.operations) if (one.uuid === uuid) return id;
    return null;
  }

  /** What an operation stopped with that waits here; null: it does not. */
  errorOf(id: number): JournalError | null {
    return this.operations.get(id)?.error ?? null;
  }

  /** @throws {BusyError} what was interrupted comes first: it is half done. */
  check(uuid: string): void {
    const id = this.of(uuid);
    if (id === null) return;
    throw new BusyError(
      `operation ${id} of this domain was interrupted because the journal could not be written; it goes on first, by itself; try again when it is through`,
      { operation: id, next: [`ferry ops wait ${id}`] },
    );
  }

  /** Told when the trouble begins, and with null when it is over. */
  onTrouble(listener: (trouble: string | null) => void): void {
    this.listeners.add(listener);
  }

  /** Gives up; the next daemon goes on from the journal. */
  close(): void {
    if (this.timer !== null) clearTimeout(this.timer);
  }

  private later(): void {
    this.timer = setTimeout(() => void this.attempt(), this.delayMs);
    this.delayMs = Math.min(2 * this.delayMs, LAST_RETRY_MS);
  }

  private async attempt(): Promise<void> {
    try {
      await this.host.known.journal.writable();
    } catch {
      // Said already when it began.
      this.later();
      return;
    }
    this.timer = null;
    this.host.log.info('the journal is well again');
    for (const listener of this.listeners) listener(null);
    const looks = new Set([
      ...[...this.operations.values()].map(({ uuid }) => uuid),
      ...this.looks,
    ]);
    this.looks.clear();
    await Promise.all([...this.operations.keys()].map((id) => this.goOn(id)));
    await Promise.all([...looks].map((uuid) => this.host.look(uuid)));
    // Unless one of them was interrupted again: a journal can be written and still be damaged.
    if (this.timer === null) this.delayMs = FIRST_RETRY_MS;
  }

  private async goOn(id: number): Promise<void> {
    try {
      const operation = await this.host.known.journal.operation(id);
      if (operation !== null && operation.endedAtMs === null)
        await this.host.resumeOperation(operation);
    } catch (error) {
      if (error instanceof JournalError) return;
      // Rolled back, or waiting for a person: the journal says so, and so does `ferry ops`.
      this.host.log.warn(
        { operation: id, error: messageOf(error) },
        'operation went on and ended with an error',
      );
    }
    this.operations.delete(id);
  }
}
