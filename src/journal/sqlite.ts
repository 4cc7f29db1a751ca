// The journal on disk: SQLite with a write-ahead log, `synchronous=FULL`, and one writer. SQLite's own lock, held for
// life (`locking_mode=EXCLUSIVE`), keeps a second daemon off the state directory and ends with the process.
// Nothing else in this process may open the database file: closing it would drop the lock (fcntl(2), POSIX locks).

import { chmodSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';

import type { CopyNote, CopyState, SavedCopy } from '../block/copy.js';
import type { DomainEvent } from '../domain/events.js';
import type { Change, DomainRecord, ImageRole } from '../domain/record.js';
import type { Plan } from '../plan/step.js';
import { checkPlan } from '../plan/step.js';
import { assert, present } from '../std/assert.js';
import { JournalError } from '../std/errors.js';
import {
  applyAll,
  copyAfter,
  copyRecordOf,
  entriesAtOnce,
  Listeners,
  operationOf,
  roleAt,
  summaryOf,
} from './applied.js';
import { decode, encode } from './codec.js';
import type { Entry } from './entry.js';
import type {
  Applied,
  AppliedChange,
  AppliedListener,
  EventFilter,
  Journal,
  OperationFilter,
  OperationRecord,
  OperationSummary,
  Retention,
  StampedEntry,
  StampedEvent,
} from './journal.js';
import { defaultRetention } from './journal.js';
import { inUse, isBusy } from './lock.js';
import { Reserve } from './reserve.js';
import type {
  CopyRow,
  DomainRow,
  EntryRow,
  EventRow,
  OperationRow,
  PieceRow,
  RoleRow,
  Statements,
} from './schema.js';
import { migrate, prepare } from './schema.js';
import { damaged, translated } from './trouble.js';

export interface SqliteJournalOptions {
  readonly stateDir: string;
  readonly nowMs?: () => number;
  readonly keep?: Partial<Retention>;
}

/** Opens, or makes, the journal of a state directory. Checks the file, and that it can be written, before anything trusts it. */
export function openJournal(options: SqliteJournalOptions): SqliteJournal {
  const { stateDir, nowMs = Date.now } = options;
  const path = join(stateDir, 'ferry.db');
  return translated(path, 'open', () => {
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    const reserve = new Reserve(stateDir);
    const db = new Database(path, { timeout: 0 });
    try {
      // Not left to the folder: another user's QEMU may pass through it. The log next to it gets the same mode.
      chmodSync(path, 0o600);
      own(db, path, stateDir);
      check(db, path);
      migrate(db, path);
      const journal = new SqliteJournal(db, { ...options, path, reserve, nowMs });
      journal.checkWritable();
      return journal;
    } catch (error) {
      db.close();
      throw error;
    }
  });
}

/** Takes the lock for life, or says who has it. */
function own(db: Database.Database, path: string, stateDir: string): void {
  try {
    // Before the first access: the log's index is then kept in memory, and the lock is taken with the first read.
    db.pragma('locking_mode = EXCLUSIVE');
    db.pragma('journal_mode = WAL');
    db.pragma('synchronous = FULL');
    db.pragma('foreign_keys = ON');
    db.exec('BEGIN IMMEDIATE; COMMIT');
  } catch (error) {
    if (!isBusy(error)) throw error;
    throw inUse(`state directory ${stateDir}`, path, 'another --state-dir', error);
  }
}

/** A whole check reads the whole file, about 1 ms a MB; beyond this only what says what is true now is checked. */
const CHECKED_WHOLE_BYTES = 64 * 1024 * 1024;

function check(db: Database.Database, path: string): void {
  const whole = statSync(path).size <= CHECKED_WHOLE_BYTES;
  const tables = whole ? ['1'] : ['domain', 'role', 'setting', 'counter', 'operation'];
  for (const table of tables) {
    const found: unknown = db.pragma(`quick_check(${table})`, { simple: true });
    if (found !== 'ok') throw damaged(path, String(found).replaceAll('\n', ' '));
  }
}

interface Opened extends SqliteJournalOptions {
  readonly path: string;
  readonly reserve: Reserve;
  readonly nowMs: () => number;
}

export class SqliteJournal implements Journal {
  private readonly db: Database.Database;
  private readonly path: string;
  private readonly reserve: Reserve;
  private readonly nowMs: () => number;
  private readonly keep: Retention;
  private readonly statements: Statements;
  private readonly listeners = new Listeners();
  /** All domain records; the table is read once. */
  private readonly records: Map<string, DomainRecord>;

  /** Use `openJournal`. */
  constructor(db: Database.Database, { path, reserve, nowMs, keep }: Opened) {
    this.db = db;
    this.path = path;
    this.reserve = reserve;
    this.nowMs = nowMs;
    this.keep = { ...defaultRetention, ...keep };
    this.statements = prepare(db);
    const rows = this.statements.domains.all() as DomainRow[];
    this.records = new Map(rows.map(({ uuid, record }) => [uuid, decode(record) as DomainRecord]));
  }

  async begin(plan: Plan): Promise<number> {
    checkPlan(plan);
    return this.writeNew(() => this.insertPlan(plan));
  }

  async append(
    operation: number,
    entry: Entry,
    changes: readonly Change[] = [],
    then: Entry | null = null,
  ): Promise<Applied> {
    return this.commit(() => {
      this.insertEntry(operation, entry, changes);
      if (then !== null) this.insertEntry(operation, then, []);
      return this.apply(this.domainOf(operation), changes);
    });
  }

  async commitAtOnce(
    plan: Plan,
  ): Promise<{ readonly operation: number; readonly applied: Applied }> {
    const entries = entriesAtOnce(plan);
    let operation = 0;
    const applied = this.commit(() => {
      operation = this.insertPlan(plan);
      for (const { entry, changes } of entries) this.insertEntry(operation, entry, changes);
      return this.apply(
        plan.domain,
        entries.flatMap(({ changes }) => changes),
      );
    }, 'new');
    return { operation, applied };
  }

  async record(domain: string, changes: readonly Change[]): Promise<Applied> {
    return this.commit(() => this.apply(domain, changes));
  }

  async entries(operation: number): Promise<readonly StampedEntry[]> {
    return this.read(() => this.entriesOf(operation));
  }

  async copy(operation: number, step: number): Promise<SavedCopy | null> {
    return this.read(() => {
      const state = this.copyState(operation, step);
      if (state === null) return null;
      const rows = this.statements.pieces.all(operation, step) as PieceRow[];
      const pieces = rows.map(({ data, ...piece }) => ({ ...piece, dataBytes: data }));
      return { ...state, pieces };
    });
  }

  async saveCopy(operation: number, step: number, note: CopyNote): Promise<void> {
    this.write(() => this.insertNote(operation, step, note));
  }

  async openOperations(): Promise<readonly OperationRecord[]> {
    return this.read(() =>
      (this.statements.open.all() as OperationRow[]).map((row) => operationOf(this.partsOf(row))),
    );
  }

  async operation(id: number): Promise<OperationRecord | null> {
    return this.read(() => {
      const row = this.statements.operation.get(id) as OperationRow | undefined;
      return row === undefined ? null : operationOf(this.partsOf(row));
    });
  }

  async operations({ domain, limit = 100 }: OperationFilter = {}): Promise<
    readonly OperationSummary[]
  > {
    return this.read(() => {
      const { operations, operationsOfDomain } = this.statements;
      const rows =
        domain === undefined ? operations.all(limit) : operationsOfDomain.all(domain, limit);
      return (rows as OperationRow[]).map((row) => summaryOf(this.partsOf(row)));
    });
  }

  async domains(): Promise<readonly DomainRecord[]> {
    return [...this.records.values()].toSorted((a, b) => (a.uuid < b.uuid ? -1 : 1));
  }

  async domain(uuid: string): Promise<DomainRecord | null> {
    return this.records.get(uuid) ?? null;
  }

  async roles(): Promise<readonly ImageRole[]> {
    return this.read(() =>
      (this.statements.roles.all() as RoleRow[]).map(({ role }) => decode(role) as ImageRole),
    );
  }

  async events({ afterSeq = 0, limit = 1000 }: EventFilter = {}): Promise<readonly StampedEvent[]> {
    const rows = this.read(() => this.statements.events.all(afterSeq, limit) as EventRow[]);
    return rows.map(({ seq, at_ms, domain, event }) => ({
      seq,
      atMs: at_ms,
      domain,
      event: decode(event) as DomainEvent,
    }));
  }

  async writable(): Promise<void> {
    this.checkWritable();
  }

  checkWritable(): void {
    this.writeNew(() => this.statements.putSetting.run('written-ms', String(this.nowMs())));
  }

  async nextDomainId(): Promise<number> {
    return this.write(() => (this.statements.nextDomainId.get() as { value: number }).value);
  }

  async setting(key: string): Promise<string | null> {
    const row = this.read(() => this.statements.setting.get(key) as { value: string } | undefined);
    return row?.value ?? null;
  }

  async putSetting(key: string, value: string | null): Promise<void> {
    this.write(() =>
      value === null
        ? this.statements.dropSetting.run(key)
        : this.statements.putSetting.run(key, value),
    );
  }

  onApplied(listener: AppliedListener): () => void {
    return this.listeners.add(listener);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.db.close();
  }

  private read<T>(body: () => T): T {
    return translated(this.path, 'read', body);
  }

  /** With the reserve, if it takes that: what has begun is brought to its end. */
  private write<T>(body: () => T): T {
    try {
      return this.attempt(body);
    } catch (error) {
      const isFull = error instanceof JournalError && error.trouble === 'full';
      if (!isFull || !this.reserve.spend()) throw error;
      return this.attempt(body);
    }
  }

  /** What is new is not begun on a disk that is full. */
  private writeNew<T>(body: () => T): T {
    translated(this.path, 'write', () => this.reserve.keep());
    return this.attempt(body);
  }

  private attempt<T>(body: () => T): T {
    return translated(this.path, 'write', () => this.db.transaction(body).immediate());
  }

  /** The records in memory and the listeners follow the disk, never the other way round. */
  private commit(body: () => Applied, kind: 'begun' | 'new' = 'begun'): Applied {
    const applied = kind === 'new' ? this.writeNew(body) : this.write(body);
    if (applied.after === null) this.records.delete(applied.domain);
    else this.records.set(applied.domain, applied.after);
    this.listeners.tell(applied);
    return applied;
  }

  private insertPlan(plan: Plan): number {
    const { lastInsertRowid } = this.statements.insertOperation.run(
      plan.domain,
      encode(plan),
      this.nowMs(),
    );
    return Number(lastInsertRowid);
  }

  private domainOf(operation: number): string {
    const row = this.statements.domainOf.get(operation) as { domain: string } | undefined;
    return present(row, `there is no operation ${operation}`).domain;
  }

  private insertEntry(operation: number, entry: Entry, changes: readonly Change[]): void {
    const { insertEntry, end, dropAllPieces, pruneOperations } = this.statements;
    const atMs = this.nowMs();
    const { changes: inserted } = insertEntry.run({
      operation,
      atMs,
      entry: encode(entry),
      changes: changes.length === 0 ? null : encode(changes),
    });
    assert(inserted === 1, `operation ${operation} is not open: no '${entry.type}' can follow`);
    if (entry.type !== 'end') return;
    end.run(atMs, operation);
    dropAllPieces.run(operation);
    pruneOperations.run(this.keep.operations);
  }

  private copyState(operation: number, step: number): CopyState | null {
    const row = this.statements.copy.get(operation, step) as { state: string } | undefined;
    return row === undefined ? null : (decode(row.state) as CopyState);
  }

  /** Inside a transaction. */
  private insertNote(operation: number, step: number, note: CopyNote): void {
    const { putCopy, putPiece, dropPieces } = this.statements;
    const state = copyAfter(this.copyState(operation, step), note, this.nowMs());
    const { changes: written } = putCopy.run({ operation, step, state: encode(state) });
    assert(written === 1, `operation ${operation} is not open: nothing of a copy can be saved`);
    if (note.note === 'begun') dropPieces.run(operation, step);
    if (note.note !== 'pieces') return;
    for (const { offset, length, dataBytes, hash } of note.pieces)
      putPiece.run(operation, step, offset, length, dataBytes, hash);
  }

  /** Inside a transaction: writes what `changes` make of the domain, its images' roles and the events. */
  private apply(domain: string, changes: readonly Change[]): Applied {
    const before = this.records.get(domain) ?? null;
    const made = applyAll(before, domain, changes);
    if (made === before)
      return { domain, before, after: before, changes: this.applyHostChanges(domain, changes) };
    const text = made === null ? null : encode(made);
    if (text === null) this.statements.dropDomain.run(domain);
    else this.statements.putDomain.run(domain, text);
    // From the text, so that what is in memory is what a restart will read.
    const after = text === null ? null : (decode(text) as DomainRecord);
    return { domain, before, after, changes: this.applyHostChanges(domain, changes) };
  }

  private applyHostChanges(domain: string, changes: readonly Change[]): readonly AppliedChange[] {
    const { dropRole, insertEvent, pruneEvents } = this.statements;
    const applied = changes.map((change): AppliedChange => {
      if (change.change === 'role') return this.applyRole(change);
      if (change.change === 'forget-role') dropRole.run(change.path);
      if (change.change === 'replan') this.replan(change);
      if (change.change !== 'event') return { change, seq: null };
      const { lastInsertRowid } = insertEvent.run(this.nowMs(), domain, encode(change.event));
      return { change, seq: Number(lastInsertRowid) };
    });
    if (applied.some(({ seq }) => seq !== null)) pruneEvents.run(this.keep.events);
    return applied;
  }

  private applyRole(change: Extract<Change, { readonly change: 'role' }>): AppliedChange {
    const { role: find, putRole } = this.statements;
    const { path } = change.role;
    const found = find.get(path) as RoleRow | undefined;
    const known = found === undefined ? null : (decode(found.role) as ImageRole);
    const role = roleAt(change, known, this.nowMs());
    putRole.run(path, encode(role));
    return { change: { change: 'role', role }, seq: null };
  }

  private replan({
    operation,
    plan,
    from,
    done,
  }: Extract<Change, { readonly change: 'replan' }>): void {
    // Only data to who made the change; here it is known to be a plan.
    checkPlan(plan as Plan);
    this.statements.replan.run(encode(plan), operation);
    this.insertEntry(operation, { type: 'replan', from, done }, []);
  }

  private entriesOf(operation: number): readonly StampedEntry[] {
    return (this.statements.entries.all(operation) as EntryRow[]).map(
      ({ at_ms, entry, changes }) => ({
        atMs: at_ms,
        entry: decode(entry) as Entry,
        changes: changes === null ? [] : (decode(changes) as Change[]),
      }),
    );
  }

  private partsOf({ id, plan, started_ms, ended_ms }: OperationRow) {
    return {
      id,
      plan: decode(plan) as Plan,
      startedAtMs: started_ms,
      endedAtMs: ended_ms,
      entries: this.entriesOf(id),
      copies: (this.statements.copies.all(id) as CopyRow[]).map(({ step, state, saved }) =>
        copyRecordOf(step, decode(state) as CopyState, saved),
      ),
    };
  }
}
