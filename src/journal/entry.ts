// What a journal says of one operation, in the order in which it became durable. Append-only.

/** A time that the guest stood still because of us. */
export interface Pause {
  readonly what: string;
  readonly ms: number;
}

/** One line of an operation's journal. */
export type Entry = Line & {
  /** Measured since the line before. They come with the next line anyway, so no write of theirs stands in a pause. */
  readonly pauses?: readonly Pause[];
};

type Line =
  /** On disk before the step is begun, so that a crash finds it worth asking the world about. */
  | { readonly type: 'doing'; readonly step: number }
  | { readonly type: 'done'; readonly step: number }
  | { readonly type: 'undone'; readonly step: number }
  /** The operation turned round. On disk before the first undo; never taken back. */
  | { readonly type: 'rollback'; readonly reason: string }
  /** The rest of its plan, from step `from` on, became another; the first `done` steps of it are done already. */
  | { readonly type: 'replan'; readonly from: number; readonly done: number }
  /** Its QEMU is gone before the commit step: it waits for the next one. The operation stays open; a later entry means that it went on. */
  | { readonly type: 'waiting'; readonly reason: string }
  /** Stopped, and waits for a person. The operation stays open; a later entry means that it went on. */
  | { readonly type: 'attention'; readonly reason: string }
  /**
   * A person settled what waited for one: which way it goes on from here, and what became of the step that the world
   * could not tell (null: the world is asked again). `back` turns the operation round as `rollback` does.
   */
  | {
      readonly type: 'resolved';
      readonly direction: Direction;
      readonly answer: Answer | null;
      /** Who said so, as a log would name him. */
      readonly by: string;
    }
  | {
      readonly type: 'end';
      readonly outcome: 'committed' | 'rolled-back';
      readonly reason?: string;
    };

/** How far one step is, as far as the journal knows. */
export type Mark = 'none' | 'doing' | 'done' | 'undone';

export type Direction = 'forward' | 'back';

/** A person's word on a step of which the world cannot tell whether it was done. */
export interface Answer {
  /** Number of the step. */
  readonly of: number;
  readonly was: 'done' | 'absent';
}
