// What the project remembers: operations with their entries, domain records, image roles, events, small settings.
// Everything that `append` is given commits in ONE transaction and is durable before it resolves. The methods are
// async so that a fleet can later keep part of this elsewhere. Two implementations, one test suite over both.

import type { CopyNote, CopyState, SavedCopy } from '../block/copy.js';
import type { DomainEvent } from '../domain/events.js';
import type { Change, DomainRecord, ImageRole } from '../domain/record.js';
import type { Plan, StepKind } from '../plan/step.js';
import type { Direction, Entry, Mark, Pause } from './entry.js';

/** A change that is durable now. `seq` is the number of the event that it is; null when it is none. */
export interface AppliedChange {
  readonly change: Change;
  readonly seq: number | null;
}

/** What one transaction made of a domain. Null: not known before, or gone after. */
export interface Applied {
  readonly domain: string;
  readonly before: DomainRecord | null;
  readonly after: DomainRecord | null;
  readonly changes: readonly AppliedChange[];
}

export interface StampedEntry {
  readonly atMs: number;
  readonly entry: Entry;
  /** The changes that became true with it. */
  readonly changes: readonly Change[];
}

export interface StampedEvent {
  readonly seq: number;
  readonly atMs: number;
  readonly domain: string;
  readonly event: DomainEvent;
}

/** One operation as lists show it. */
export interface OperationSummary {
  readonly id: number;
  /** `operation` of its plan. */
  readonly kind: string;
  readonly domain: string;
  readonly domainName: string;
  readonly startedAtMs: number;
  /** Null while it is open. */
  readonly endedAtMs: number | null;
  readonly outcome: 'committed' | 'rolled-back' | null;
  readonly direction: Direction;
  /** Why it turned round or ended. */
  readonly reason: string | null;
  /** Why it waits for a person; null when it does not. */
  readonly attention: string | null;
  /** Why it waits for the next start of its domain; null when it does not. */
  readonly waiting: string | null;
  readonly commitAt: number;
  readonly steps: readonly { readonly kind: StepKind; readonly mark: Mark }[];
  /** In the order in which they were measured. */
  readonly pauses: readonly Pause[];
}

/** How far the copy is that one step makes. */
export interface CopyRecord extends CopyState {
  readonly step: number;
  /** Data that is durable at the destination and written down. */
  readonly savedBytes: number;
}

/** One operation, whole. */
export interface OperationRecord extends OperationSummary {
  readonly plan: Plan;
  readonly entries: readonly StampedEntry[];
  /** Of the steps that copy and have begun, in their order. */
  readonly copies: readonly CopyRecord[];
}

export interface OperationFilter {
  /** UUID. */
  readonly domain?: string;
  /** Default 100. */
  readonly limit?: number;
}

export interface EventFilter {
  /** Default 0: from the oldest that is kept. */
  readonly afterSeq?: number;
  /** Default 1000. */
  readonly limit?: number;
}

/** Called after the commit and before the call that made it resolves, in the order of the commits. */
export type AppliedListener = (applied: Applied) => void;

export interface Journal extends AsyncDisposable {
  /** Opens an operation. The plan is durable before it resolves. */
  begin(plan: Plan): Promise<number>;

  /**
   * Writes `entry`, and `then` behind it, and applies `changes` of `entry` to the operation's domain: all or nothing. An
   * ended operation takes none.
   */
  append(
    operation: number,
    entry: Entry,
    changes?: readonly Change[],
    then?: Entry | null,
  ): Promise<Applied>;

  /** Begins, does and ends a plan whose steps are all `record`, in one transaction. */
  commitAtOnce(plan: Plan): Promise<{ readonly operation: number; readonly applied: Applied }>;

  /** Changes that no operation makes: a state that an event told. */
  record(domain: string, changes: readonly Change[]): Promise<Applied>;

  /** Oldest first. Empty for an operation that holds only its plan, or that is not known. */
  entries(operation: number): Promise<readonly StampedEntry[]>;

  /** What was saved of the copy that a step makes; null: nothing. */
  copy(operation: number, step: number): Promise<SavedCopy | null>;

  /**
   * Writes down how far that copy is. An ended operation takes nothing, and its pieces are forgotten with its end: what
   * stays is the rest of the record.
   */
  saveCopy(operation: number, step: number, note: CopyNote): Promise<void>;

  /** Oldest first; those that wait for a person too. */
  openOperations(): Promise<readonly OperationRecord[]>;

  operation(id: number): Promise<OperationRecord | null>;

  /** Newest first. Ended ones are kept up to a number. */
  operations(filter?: OperationFilter): Promise<readonly OperationSummary[]>;

  /** Sorted by UUID. */
  domains(): Promise<readonly DomainRecord[]>;
  domain(uuid: string): Promise<DomainRecord | null>;

  /** Sorted by path. */
  roles(): Promise<readonly ImageRole[]>;

  /** Oldest first. Only the newest are kept. */
  events(filter?: EventFilter): Promise<readonly StampedEvent[]>;

  /** The next libvirt domain id: counts from 1, never given twice, not even after a crash. */
  nextDomainId(): Promise<number>;

  /** Writes something small. @throws {JournalError} while nothing can be written, or there is no room to begin something. */
  writable(): Promise<void>;

  setting(key: string): Promise<string | null>;
  /** Null removes it. */
  putSetting(key: string, value: string | null): Promise<void>;

  /** Returns what ends the listening. A listener that throws is a bug: it is rethrown outside, the commit stands. */
  onApplied(listener: AppliedListener): () => void;
}

/** How much history is kept. */
export interface Retention {
  readonly events: number;
  /** Ended operations; open ones are never dropped. */
  readonly operations: number;
}

export const defaultRetention: Retention = { events: 10_000, operations: 1000 };
