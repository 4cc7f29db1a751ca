// The journal on disk: SQLite with a write-ahead log, `synchronous=FULL`, and one writer. SQLite's own lock, held for
// life (`locking_mode=EXCLUSIVE`), keeps a second daemon off the state directory and ends with the process.
// Nothing else in this process may open the database file: closing it would drop the lock (fcntl(2), POSIX locks).

import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';

import type { DomainEvent } from '../domain/events.js';
import type { Change, DomainRecord, ImageRole } from '../domain/record.js';
import type { Plan } from '../plan/step.js';
import { checkPlan } from '../plan/step.js';
import { assert, present } from '../std/assert.js';
import { messageOf, StateError, SystemError } from '../std/errors.js';
import { applyAll, entriesAtOnce, Listeners, operationOf, summaryOf } from './applied.js';
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
import type { DomainRow, EntryRow, EventRow, OperationRow, RoleRow, Statements } from './schema.js';
import { migrate, prepare } from './schema.js';

export interface SqliteJournalOptions {
  readonly stateDir: string;
  readonly nowMs?: () => number;
  readonly keep?: Partial<Retention>;
}

/** Opens, or makes, the journal of a state directory. Checks the file before anything trusts it. */
export function openJournal(options: SqliteJournalOptions): SqliteJournal {
  const path = join(options.stateDir, 'ferry.db');
  return translated(path, 'open', () => {
    mkdirSync(options.stateDir, { recursive: true, mode: 0o700 });
    const db = new Database(path, { timeout: 0 });
    try {
      // Not left to the folder: another user's QEMU may pass through it. The log next to it gets the same mode.
      chmodSync(path, 0o600);
      own(db, options.stateDir);
      check(db, path);
      migrate(db, path);
      return new SqliteJournal(db, path, options);
    } catch (error) {
      db.close();
      throw error;
    }
  });
}

/** Takes the lock for life, or says who has it. */
function own(db: Database.Database, stateDir: string): void {
  const holder = join(stateDir, 'ferryd.pid');
  try {
    // Before the first access: the log's index is then kept in memory, and the lock is taken with the first read.
    db.pragma('locking_mode = EXCLUSIVE');
    db.pragma('journal_mode = WAL');
    db.pragma('synchronous = FULL');
    db.pragma('foreign_keys = ON');
    db.exec('BEGIN IMMEDIATE; COMMIT');
  } catch (error) {
    if (!isSqlite(error) || !error.code.startsWith('SQLITE_BUSY')) throw error;
    throw new StateError(
      'OPERATION_INVALID',
      `start: state directory ${stateDir} is in use by the ferryd with pid ${pidIn(holder)}; end it first, or give another --state-dir`,
      { cause: error },
    );
  }
  writeFileSync(holder, `${process.pid}\n`);
}

/** The lock says that there is a holder; this file only says its name. */
function pidIn(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return 'unknown';
  }
}

function check(db: Database.Database, path: string): void {
  const found: unknown = db.pragma('quick_check(1)', { simple: true });
  if (found !== 'ok') throw damaged(path, String(found));
}

export class SqliteJournal implements Journal {
  private readonly db: Database.Database;
  private readonly path: string;
  private readonly nowMs: () => number;
  private readonly keep: Retention;
  private readonly statements: Statements;
  private readonly listeners = new Listeners();
  /** All domain records; the table is read once. */
  private readonly records: Map<string, DomainRecord>;

  /** Use `openJournal`. */
  constructor(db: Database.Database, path: string, options: SqliteJournalOptions) {
    this.db = db;
    this.path = path;
    this.nowMs = options.nowMs ?? Date.now;
    this.keep = { ...defaultRetention, ...options.keep };
    this.statements = prepare(db);
    const rows = this.statements.domains.all() as DomainRow[];
    this.records = new Map(rows.map(({ uuid, record }) => [uuid, decode(record) as DomainRecord]));
  }

  async begin(plan: Plan): Promise<number> {
    checkPlan(plan);
    return this.write(() => this.insertPlan(plan));
  }

  async append(operation: number, entry: Entry, changes: readonly Change[] = []): Promise<Applied> {
    return this.commit(() => {
      this.insertEntry(operation, entry, changes);
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
    });
    return { operation, applied };
  }

  async record(domain: string, changes: readonly Change[]): Promise<Applied> {
    return this.commit(() => this.apply(domain, changes));
  }

  async entries(operation: number): Promise<readonly StampedEntry[]> {
    return this.read(() => this.entriesOf(operation));
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

  private write<T>(body: () => T): T {
    return translated(this.path, 'write', () => this.db.transaction(body).immediate());
  }

  /** The records in memory and the listeners follow the disk, never the other way round. */
  private commit(body: () => Applied): Applied {
    const applied = this.write(body);
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
    const { insertEntry, end, pruneOperations } = this.statements;
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
    pruneOperations.run(this.keep.operations);
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
    const { putRole, dropRole, insertEvent, pruneEvents } = this.statements;
    const applied = changes.map((change): AppliedChange => {
      if (change.change === 'role') putRole.run(change.role.path, encode(change.role));
      if (change.change === 'forget-role') dropRole.run(change.path);
      if (change.change !== 'event') return { change, seq: null };
      const { lastInsertRowid } = insertEvent.run(this.nowMs(), domain, encode(change.event));
      return { change, seq: Number(lastInsertRowid) };
    });
    if (applied.some(({ seq }) => seq !== null)) pruneEvents.run(this.keep.events);
    return applied;
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
    };
  }
}

const isSqlite = (error: unknown): error is InstanceType<typeof Database.SqliteError> =>
  error instanceof Database.SqliteError;

const damaged = (path: string, why: string, cause?: unknown): SystemError =>
  new SystemError(
    `journal: ${path} is damaged (${why}); move it away and put a backup in its place, the guests run on meanwhile`,
    { cause },
  );

/** What to do about SQLite's errors, by its result code (sqlite.org/rescode.html). */
function translated<T>(path: string, verb: 'open' | 'read' | 'write', body: () => T): T {
  try {
    return body();
  } catch (error) {
    const code = codeOf(error);
    if (code === null) throw error;
    if (code === 'SQLITE_NOTADB' || code.startsWith('SQLITE_CORRUPT')) {
      throw damaged(path, messageOf(error), error);
    }
    const full = code === 'SQLITE_FULL' || code === 'ENOSPC';
    throw new SystemError(
      `journal: cannot ${verb} ${path}: ${messageOf(error)} (${code}); ${full ? 'make room on its file system' : 'look at its file system and permissions'}`,
      { cause: error },
    );
  }
}

/** Null: neither SQLite nor the file system, so it is for the caller. */
function codeOf(error: unknown): string | null {
  if (isSqlite(error)) return error.code;
  const isSystem = error instanceof Error && 'syscall' in error && 'code' in error;
  return isSystem ? String(error.code) : null;
}
