// What the harness says to a struck daemon (striker.ts), and what that one writes down. Types only, but for the names.

/** Who is killed at a point, or `refuse`/`cancel`: nobody, a QMP command goes wrong. */
export type Deed =
  /** SIGKILL of ferryd. */
  | 'daemon'
  /** SIGKILL of the guest's QEMU. */
  | 'qemu'
  /** QEMU, then ferryd. */
  | 'both'
  /** QEMU, the tools that ferryd runs, ferryd; the harness then does to the files what a power cut may do. */
  | 'host'
  /** The command is not sent, and ferryd hears a refusal. */
  | 'refuse'
  /** The command is answered with success, and QEMU gets `job-cancel` of that job instead: a job that fails by itself. */
  | 'cancel';

export type Moment = 'before' | 'after';

/** One strike. */
export interface Blow {
  /** The name of a point, as a daemon wrote it down in a run before this one; or its number in this run, from 1. */
  readonly point: string | number;
  readonly moment: Moment;
  readonly deed: Deed;
  /** `refuse`: every later command of that name is refused as well. */
  readonly lasting?: boolean;
}

/** `go`: a daemon that waits, its modules loaded, starts. `arm`: points are counted from now on. */
export type Order =
  | { readonly do: 'go' }
  | { readonly do: 'arm'; readonly blow: Blow | null }
  | { readonly do: 'disarm' };

/** Lines of the daemon's log of points: each point that was reached, and the strike. */
export type Note =
  | { readonly point: string; readonly asks: boolean }
  /** `at`: the name of the point. `killed`: QEMUs that were there to be killed. */
  | {
      readonly struck: Blow;
      readonly at: string;
      readonly killed: readonly number[];
      readonly unsynced: Unsynced;
    };

/** What a power cut at this moment may take, as far as ferryd and the tools that it runs made it. */
export interface Unsynced {
  /** Files with data that nobody made durable. `kept`: a copy of what was; null: nothing of it. */
  readonly data: readonly { readonly path: string; readonly kept: string | null }[];
  /** Names in folders that nobody made durable since: what was there before, if that is known to lie somewhere. */
  readonly names: readonly NameChange[];
}

export type NameChange =
  | { readonly change: 'made'; readonly path: string }
  | { readonly change: 'renamed'; readonly path: string; readonly from: string }
  /** `kept`: a link to what was removed. */
  | { readonly change: 'removed'; readonly path: string; readonly kept: string };

/** Environment of a struck daemon. */
export const strikeLog = 'FERRY_STRIKE_LOG';
export const strikeWaits = 'FERRY_STRIKE_WAITS';
