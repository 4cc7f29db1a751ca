// What is asked before any move of a guest that runs, whichever way it goes.

import type { DomainRecord } from '../domain/record.js';
import { checkAgent } from './agent-check.js';
import type { MoveRequest } from './ferry-host.js';
import type { Host } from './host.js';
import { checkPivot } from './pivot-verbs.js';
import { checkTargets } from './targets.js';

/** @throws what stands in the way. */
export async function checkReady(
  host: Host,
  record: DomainRecord,
  request: MoveRequest,
): Promise<void> {
  checkPivot(host, request.pivot);
  for (const asked of ['quiesce', 'trim'] as const)
    if (request[asked]) await checkAgent(host, record, `--${asked}`);
  await checkTargets(host.context.images, record, 'move');
}
