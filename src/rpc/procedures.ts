// All procedures that are served; any other number is "unknown procedure", by which clients know what to hide.

import { assert } from '../std/assert.js';
import { blockProcedures } from './handlers/block.js';
import { connectProcedures } from './handlers/connect.js';
import { domainProcedures } from './handlers/domain.js';
import { eventProcedures, monitorEventProcedures } from './handlers/events.js';
import { lifecycleProcedures } from './handlers/lifecycle.js';
import { monitorProcedures } from './handlers/monitor.js';
import { snapshotProcedures } from './handlers/snapshot.js';
import { statsProcedures } from './handlers/stats.js';
import type { Procedure } from './procedure.js';

export const procedureTables = {
  remote: byNumber([
    ...connectProcedures,
    ...domainProcedures,
    ...lifecycleProcedures,
    ...blockProcedures,
    ...statsProcedures,
    ...snapshotProcedures,
    ...eventProcedures,
  ]),
  qemu: byNumber([...monitorProcedures, ...monitorEventProcedures]),
} as const;

function byNumber(rows: readonly Procedure[]): ReadonlyMap<number, Procedure> {
  const table = new Map(rows.map((row) => [row.number, row]));
  assert(table.size === rows.length, 'two procedures of one number');
  return table;
}
