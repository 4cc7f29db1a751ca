// Tables of the journal's database and every statement on them. `user_version` is the version of this file's tables.

import type Database from 'better-sqlite3';

import { StateError } from '../std/errors.js';

/** One script a version: script n makes version n + 1 of version n. Never edited once released, only added to. */
const versions: readonly string[] = [
  `
  CREATE TABLE operation (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    domain TEXT NOT NULL,
    plan TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms INTEGER
  ) STRICT;
  CREATE INDEX operation_open ON operation (id) WHERE ended_ms IS NULL;
  CREATE INDEX operation_domain ON operation (domain, id);
  CREATE TABLE entry (
    id INTEGER PRIMARY KEY,
    operation INTEGER NOT NULL REFERENCES operation ON DELETE CASCADE,
    at_ms INTEGER NOT NULL,
    entry TEXT NOT NULL,
    changes TEXT
  ) STRICT;
  CREATE INDEX entry_operation ON entry (operation, id);
  CREATE TABLE domain (uuid TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE role (path TEXT PRIMARY KEY, role TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    domain TEXT NOT NULL,
    event TEXT NOT NULL
  ) STRICT;
  CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  `,
  // What is owed became a list of mirrors; before, it was a text that refused the start of a source that is complete.
  `
  UPDATE domain SET record = json_set(record, '$.owed', json('[]'));
  UPDATE role SET role = json_set(role, '$.domainName', '');
  `,
  `
  CREATE TABLE copy (
    operation INTEGER NOT NULL REFERENCES operation ON DELETE CASCADE,
    step INTEGER NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (operation, step)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE piece (
    operation INTEGER NOT NULL,
    step INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    data INTEGER NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (operation, step, offset),
    FOREIGN KEY (operation, step) REFERENCES copy ON DELETE CASCADE
  ) STRICT, WITHOUT ROWID;
  `,
];

/** Brings the tables to this version. A newer one is refused: an older program would not understand what it reads. */
export function migrate(db: Database.Database, path: string): void {
  const found = Number(db.pragma('user_version', { simple: true }));
  if (found > versions.length) {
    throw new StateError(
      'OPERATION_INVALID',
      `start: ${path} has version ${found}, this ferryd knows versions up to ${versions.length}; start the newer ferryd that wrote it`,
    );
  }
  if (found === versions.length) return;
  db.transaction(() => {
    for (const script of versions.slice(found)) db.exec(script);
    db.pragma(`user_version = ${versions.length}`);
  }).immediate();
}

export interface OperationRow {
  readonly id: number;
  readonly plan: string;
  readonly started_ms: number;
  readonly ended_ms: number | null;
}

export interface EntryRow {
  readonly at_ms: number;
  readonly entry: string;
  readonly changes: string | null;
}

export interface CopyRow {
  readonly step: number;
  readonly state: string;
  readonly saved: number;
}

export interface PieceRow {
  readonly offset: number;
  readonly length: number;
  readonly data: number;
  readonly hash: string;
}

export interface DomainRow {
  readonly uuid: string;
  readonly record: string;
}

export interface RoleRow {
  readonly role: string;
}

export interface EventRow {
  readonly seq: number;
  readonly at_ms: number;
  readonly domain: string;
  readonly event: string;
}

const operation = 'SELECT id, plan, started_ms, ended_ms FROM operation';

/** Every statement of the journal. */
const statements = {
  insertOperation: 'INSERT INTO operation (domain, plan, started_ms) VALUES (?, ?, ?)',
  operation: `${operation} WHERE id = ?`,
  open: `${operation} WHERE ended_ms IS NULL ORDER BY id`,
  operations: `${operation} ORDER BY id DESC LIMIT ?`,
  operationsOfDomain: `${operation} WHERE domain = ? ORDER BY id DESC LIMIT ?`,
  replan: 'UPDATE operation SET plan = ? WHERE id = ?',
  domainOf: 'SELECT domain FROM operation WHERE id = ?',
  end: 'UPDATE operation SET ended_ms = ? WHERE id = ?',
  pruneOperations: `
    DELETE FROM operation WHERE ended_ms IS NOT NULL AND id <=
      (SELECT id FROM operation WHERE ended_ms IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET ?)`,
  // Writes nothing when the operation has ended or never was.
  insertEntry: `
    INSERT INTO entry (operation, at_ms, entry, changes)
      SELECT id, @atMs, @entry, @changes FROM operation WHERE id = @operation AND ended_ms IS NULL`,
  entries: 'SELECT at_ms, entry, changes FROM entry WHERE operation = ? ORDER BY id',
  copies: `
    SELECT step, state, (SELECT TOTAL(data) FROM piece
        WHERE piece.operation = copy.operation AND piece.step = copy.step) AS saved
      FROM copy WHERE operation = ? ORDER BY step`,
  copy: 'SELECT state FROM copy WHERE operation = ? AND step = ?',
  // Writes nothing when the operation has ended or never was.
  putCopy: `
    INSERT INTO copy (operation, step, state)
      SELECT id, @step, @state FROM operation WHERE id = @operation AND ended_ms IS NULL
      ON CONFLICT (operation, step) DO UPDATE SET state = excluded.state`,
  pieces: `
    SELECT offset, length, data, hash FROM piece WHERE operation = ? AND step = ? ORDER BY offset`,
  putPiece: `
    REPLACE INTO piece (operation, step, offset, length, data, hash) VALUES (?, ?, ?, ?, ?, ?)`,
  dropPieces: 'DELETE FROM piece WHERE operation = ? AND step = ?',
  dropAllPieces: 'DELETE FROM piece WHERE operation = ?',
  domains: 'SELECT uuid, record FROM domain',
  putDomain: 'REPLACE INTO domain (uuid, record) VALUES (?, ?)',
  dropDomain: 'DELETE FROM domain WHERE uuid = ?',
  roles: 'SELECT role FROM role ORDER BY path',
  role: 'SELECT role FROM role WHERE path = ?',
  putRole: 'REPLACE INTO role (path, role) VALUES (?, ?)',
  dropRole: 'DELETE FROM role WHERE path = ?',
  insertEvent: 'INSERT INTO event (at_ms, domain, event) VALUES (?, ?, ?)',
  pruneEvents: `
    DELETE FROM event WHERE seq <= (SELECT seq FROM event ORDER BY seq DESC LIMIT 1 OFFSET ?)`,
  events: 'SELECT seq, at_ms, domain, event FROM event WHERE seq > ? ORDER BY seq LIMIT ?',
  nextDomainId: `
    INSERT INTO counter (name, value) VALUES ('domain-id', 1)
      ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value`,
  setting: 'SELECT value FROM setting WHERE key = ?',
  putSetting: 'REPLACE INTO setting (key, value) VALUES (?, ?)',
  dropSetting: 'DELETE FROM setting WHERE key = ?',
} as const;

export type Statements = Readonly<Record<keyof typeof statements, Database.Statement>>;

/** Every statement, prepared. */
export function prepare(db: Database.Database): Statements {
  const prepared = Object.entries(statements).map(([name, sql]) => [name, db.prepare(sql)]);
  // The same names as in `statements`.
  return Object.fromEntries(prepared) as Statements;
}
