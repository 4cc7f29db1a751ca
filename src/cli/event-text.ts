// Events as virsh prints them: `event 'lifecycle' for domain 'vm1': Started Booted`.

import type { StreamedEvent } from '../host/ferry-host.js';

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
  return `${title(event['event'])} ${title(event['detail'])}`;
}

function jobText(event: Fields): string {
  return `Block ${title(event['job'])} for ${words(event['target'])} ${words(event['status'])}`;
}

function title(value: unknown): string {
  return typeof value === 'string' ? value.charAt(0).toUpperCase() + value.slice(1) : 'unknown';
}

const words = (...values: readonly unknown[]): string =>
  values.filter((value) => typeof value === 'string' || typeof value === 'number').join(' ');
