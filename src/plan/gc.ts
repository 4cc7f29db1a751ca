// Plans the removal of files that were proven ours and unused (law 14). The order is the caller's: what names another
// comes before it.

import type { Plan } from './step.js';

export interface GcPlan {
  /** UUID and name: of the domain that the files belonged to, or of the host. */
  readonly domain: string;
  readonly domainName: string;
  readonly paths: readonly string[];
}

export function planGc({ domain, domainName, paths }: GcPlan): Plan {
  return {
    operation: 'gc',
    domain,
    domainName,
    steps: [
      ...paths.map((path) => ({ kind: 'remove-file' as const, path })),
      { kind: 'record', changes: paths.map((path) => ({ change: 'forget-role' as const, path })) },
    ],
    commitAt: 0,
  };
}
