// States of a domain and why it is in them, with libvirt's numbers (virDomainState and its reasons).

/** libvirt's virDomainState. */
export const domainStates = {
  running: 1,
  blocked: 2,
  paused: 3,
  shutdown: 4,
  shutoff: 5,
  crashed: 6,
  pmsuspended: 7,
} as const;

/** Reasons per state: VIR_DOMAIN_RUNNING_*, VIR_DOMAIN_PAUSED_*, … */
export const stateReasons = {
  running: {
    unknown: 0,
    booted: 1,
    migrated: 2,
    restored: 3,
    'from snapshot': 4,
    unpaused: 5,
    'migration canceled': 6,
    'save canceled': 7,
    wakeup: 8,
    crashed: 9,
  },
  paused: {
    unknown: 0,
    user: 1,
    migration: 2,
    save: 3,
    dump: 4,
    'I/O error': 5,
    watchdog: 6,
    'from snapshot': 7,
    'shutting down': 8,
    snapshot: 9,
    crashed: 10,
    'starting up': 11,
  },
  shutdown: { unknown: 0, user: 1 },
  shutoff: {
    unknown: 0,
    shutdown: 1,
    destroyed: 2,
    crashed: 3,
    migrated: 4,
    saved: 5,
    failed: 6,
    'from snapshot': 7,
    daemon: 8,
  },
  crashed: { unknown: 0, panicked: 1 },
  pmsuspended: { unknown: 0 },
} as const;

export type DomainState = {
  readonly [S in keyof typeof stateReasons]: {
    readonly state: S;
    readonly reason: keyof (typeof stateReasons)[S];
  };
}[keyof typeof stateReasons];

/** The pair of numbers that virDomainGetState answers. */
export function stateNumbers(state: DomainState): {
  readonly state: number;
  readonly reason: number;
} {
  const reasons: Readonly<Record<string, number>> = stateReasons[state.state];
  return { state: domainStates[state.state], reason: reasons[state.reason] ?? 0 };
}
