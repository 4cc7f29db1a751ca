// Events as virsh prints them: `event 'lifecycle' for domain 'vm1': Started Booted`.

import type { StreamedEvent } from '../host/ferry-host.js';

/** virDomainEventType with its details, in libvirt's order; the texts are virsh's. */
const lifecycle: readonly (readonly [string, readonly string[]])[] = [
  ['Defined', ['Added', 'Updated', 'Renamed', 'Snapshot']],
  ['Undefined', ['Removed', 'Renamed']],
  ['Started', ['Booted', 'Migrated', 'Restored', 'Snapshot', 'Event wakeup']],
  [
    'Suspended',
    [
      'Paused',
      'Migrated',
      'I/O Error',
      'Watchdog',
      'Restored',
      'Snapshot',
      'API error',
      'Post-copy',
      'Post-copy Error',
    ],
  ],
  ['Resumed', ['Unpaused', 'Migrated', 'Snapshot', 'Post-copy']],
  ['Stopped', ['Shutdown', 'Destroyed', 'Crashed', 'Migrated', 'Saved', 'Failed', 'Snapshot']],
  ['Shutdown', ['Finished', 'Finished after guest request', 'Finished after host request']],
  ['PMSuspended', ['Memory', 'Disk']],
  ['Crashed', ['Panicked']],
];

/** virDomainBlockJobType and virConnectDomainEventBlockJobStatus. */
const jobTypes = [
  'Unknown job',
  'Block Pull',
  'Block Copy',
  'Block Commit',
  'Active Block Commit',
  'Backup',
  'Block Job',
];
const jobStates = ['completed', 'failed', 'canceled', 'ready'];

export function eventText({ event, domainName }: StreamedEvent): string {
  const of = domainName === null ? '' : ` for domain '${domainName}'`;
  return `event '${event.type}'${of}: ${details(event)}`;
}

type Fields = StreamedEvent['event'];

function details(event: Fields): string {
  const describe = describers.get(event.type);
  if (describe !== undefined) return describe(event);
  // Of a newer daemon: everything there is, rather than nothing.
  const { type: _, ...rest } = event;
  return JSON.stringify(rest);
}

const describers: ReadonlyMap<string, (event: Fields) => string> = new Map([
  ['lifecycle', lifecycleText],
  ['block-job', jobText],
  ['monitor', (event: Fields) => words(event['event'], event['details'])],
  [
    'operation',
    (event: Fields) =>
      `${words(event['operation'], event['kind'], event['status'])}: ${words(event['message'])}`,
  ],
]);

function lifecycleText(event: Fields): string {
  const [name, reasons] = lifecycle[Number(event['event'])] ?? ['unknown', []];
  return `${name} ${reasons[Number(event['detail'])] ?? 'unknown'}`;
}

function jobText(event: Fields): string {
  const job = jobTypes[Number(event['job'])] ?? 'Block Job';
  const state = jobStates[Number(event['status'])] ?? 'unknown';
  return `${job} for ${words(event['target'])} ${state}`;
}

const words = (...values: readonly unknown[]): string =>
  values.filter((value) => typeof value === 'string' || typeof value === 'number').join(' ');
