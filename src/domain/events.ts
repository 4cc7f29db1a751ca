// What clients are told of a domain, with the names of libvirt's enums in lower case.

/** VIR_DOMAIN_EVENT_ID_LIFECYCLE: what happened and why. */
export type LifecycleChange =
  | {
      readonly event: 'defined';
      readonly detail: 'added' | 'updated' | 'renamed' | 'from snapshot';
    }
  | { readonly event: 'undefined'; readonly detail: 'removed' | 'renamed' }
  | {
      readonly event: 'started';
      readonly detail: 'booted' | 'migrated' | 'restored' | 'from snapshot' | 'wakeup';
    }
  | {
      readonly event: 'suspended';
      readonly detail:
        | 'paused'
        | 'migrated'
        | 'I/O error'
        | 'watchdog'
        | 'restored'
        | 'from snapshot'
        | 'API error';
    }
  | { readonly event: 'resumed'; readonly detail: 'unpaused' | 'migrated' | 'from snapshot' }
  | {
      readonly event: 'stopped';
      readonly detail:
        | 'shutdown'
        | 'destroyed'
        | 'crashed'
        | 'migrated'
        | 'saved'
        | 'failed'
        | 'from snapshot';
    }
  | { readonly event: 'shutdown'; readonly detail: 'finished' | 'guest' | 'host' }
  | { readonly event: 'pmsuspended'; readonly detail: 'memory' | 'disk' }
  | { readonly event: 'crashed'; readonly detail: 'panicked' | 'crashloaded' };

/** virDomainBlockJobType and virConnectDomainEventBlockJobStatus. */
export type BlockJobType = 'unknown' | 'pull' | 'copy' | 'commit' | 'active-commit' | 'backup';
export type BlockJobStatus = 'completed' | 'failed' | 'canceled' | 'ready';

/** What goes out. Stored with the journal entry that made it true, so that a crash owes it, not loses it. */
export type DomainEvent =
  /** `id` is the one that the event shows: -1 once the domain stopped. */
  | { readonly type: 'lifecycle'; readonly id: number; readonly change: LifecycleChange }
  | { readonly type: 'reboot' }
  | {
      readonly type: 'block-job';
      /** The disk's source at this moment; null when it is not local. */
      readonly path: string | null;
      readonly target: string;
      readonly job: BlockJobType;
      readonly status: BlockJobStatus;
    }
  /** An event of QEMU's monitor, or one of ours dressed as such (MIRROR_DROPPED). */
  | { readonly type: 'monitor'; readonly event: string; readonly details: string | null };
