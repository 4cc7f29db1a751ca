// What a kind of step does to the world. The runner knows effects only through this; the real ones are in `effects/`.

import type { CopyNote, SavedCopy } from '../block/copy.js';
import type { Change } from '../domain/record.js';
import type { Pacing } from '../image/pace.js';
import type { StepKind, StepOf } from '../plan/step.js';

/**
 * What the world says of a step, whatever the journal says. `partial`: begun, and both `do` and `undo` know how to go
 * on from there. `unknown`: cannot be told, so nobody may guess.
 */
export type Probe = 'done' | 'absent' | 'partial' | 'unknown';

/** How far a long step is. */
export interface StepReport {
  readonly doneBytes: bigint;
  readonly totalBytes: bigint;
  /** Of a copy. */
  readonly phase?: 'copying' | 'verifying';
  /** Every mirror is READY and follows the guest: nothing but a word or its time is waited for. */
  readonly isInStep?: true;
}

/** How the copies of an operation go. */
export interface CopyPace {
  /** Null: as fast as the storages let them. */
  readonly limitBytesPerSecond: bigint | null;
  /** They stand still. */
  readonly isPaused: boolean;
}

export interface EffectContext {
  readonly operation: number;
  /** Where the operation is going when the step is done, undone or asked. */
  readonly direction: 'forward' | 'back';
  /** Told when it is done: it was begun before, by a daemon that died or an attempt that failed. */
  readonly begun: boolean;
  /** Aborted when the user cancels. Only a `background` step before the commit step ever sees that. */
  readonly signal: AbortSignal;
  readonly progress: (report: StepReport) => void;
  /** A pause of the guest that was ours and is over: it is journaled with the next entry. */
  readonly notePause: (what: string, ms: number) => void;
  /** What was said of the operation's copies since it was planned, asked again and again; null: nothing. */
  readonly pace: () => CopyPace | null;
  /** What all copies of the operation read, together; `limit` is of the first that asks. */
  readonly budget: (limit: () => number | null) => Pacing;
  /** Whether somebody said that the operation shall switch without waiting any longer; asked again and again. */
  readonly isPivotSaid: () => boolean;
  /** What this step, in whichever life of the daemon, wrote down of the copy that it makes; null: nothing. */
  readonly saved: () => Promise<SavedCopy | null>;
  /** Durable when it resolves. */
  readonly save: (note: CopyNote) => Promise<void>;
}

/** One kind of outside effect. `undo` is idempotent; `do` is called again only after the world said `absent` or `partial`. */
export interface Effect<S, W> {
  do(step: S, world: W, context: EffectContext): Promise<void>;
  undo(step: S, world: W, context: EffectContext): Promise<void>;
  /** Asks the world, never the marks of the journal; what was `saved` tells a file of ours from others. A throw counts as `unknown`. */
  probe(step: S, world: W, context: EffectContext): Promise<Probe>;

  /** Changes that only the world knows. Asked once the step is done; they commit with the entry `done`, after the step's own. */
  changes?(step: S, world: W, context: EffectContext): Promise<readonly Change[]>;

  /**
   * Doing it twice is harmless, and so is undoing what was never done. No `doing` is written, which saves an fsync in
   * the guest's pause; a rollback undoes the step at which the journal ends without asking, done or not.
   */
  readonly repeatable?: true;

  /** Takes long: the domain's lock is released while `do` runs. */
  readonly background?: true;

  /** Of a background step: those that follow one another and have lanes are done side by side, in a lane one after the other. */
  lane?(step: S): string | null;
}

/** A new kind of step does not compile until it has all three. */
export type Effects<W> = { readonly [K in StepKind]: Effect<StepOf<K>, W> };
