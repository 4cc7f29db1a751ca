// What a person may type when a move does not converge: only what helps, and what this QEMU has. Pure.

import type { CommandHint } from '../ferry-host.js';
import type { Convergence } from './foresight.js';

export interface Rungs {
  readonly operation: number;
  readonly domainName: string;
  /** How virsh reaches this daemon. */
  readonly uri: string;
  /** Jobs of its mirrors. Their targets have their backing open (law 3). */
  readonly jobIds: readonly string[];
  /** Something is still being copied, and nobody lets it stand still. */
  readonly isCopying: boolean;
  readonly isLimited: boolean;
  /** This QEMU has `block-job-change`. */
  readonly canForce: boolean;
}

export function ladderOf({ of }: Convergence, rungs: Rungs): readonly CommandHint[] {
  if (of === null) return [];
  const { operation: n } = rungs;
  return [
    ...(of === 'copy' && rungs.isLimited
      ? [
          {
            type: `ferry limit ${n} none`,
            why: 'let the copies go as fast as the storages let them',
          },
        ]
      : []),
    ...(of === 'mirror' && rungs.isCopying
      ? [
          {
            type: `ferry pause ${n}`,
            why: 'leave the storages to the mirror until it has caught up',
          },
        ]
      : []),
    ...(of === 'mirror' && rungs.canForce ? rungs.jobIds.map((id) => force(rungs, id)) : []),
    { type: `ferry watch ${n}`, why: 'wait for a quieter guest; the source stays complete' },
    { type: `ferry cancel ${n}`, why: 'take it back, and move when the guest writes less' },
  ];
}

function force({ domainName, uri }: Rungs, jobId: string): CommandHint {
  const command = JSON.stringify({
    execute: 'block-job-change',
    arguments: { id: jobId, type: 'mirror', 'copy-mode': 'write-blocking' },
  });
  return {
    type: `virsh -c '${uri}' qemu-monitor-command ${domainName} '${command}'`,
    why: 'slow the guest down to what the destination takes',
  };
}
