// The events that one client asked for, and the packets that one event makes for it.
// Source: libvirt `src/remote/remote_protocol.x`, the procedures of virConnectDomainEventRegisterAny's callbacks.

import { RequestError } from '../std/errors.js';
import {
  i32,
  i64,
  optional,
  struct,
  u32,
  u64,
  type Codec,
  type Fields,
  type StructOf,
} from '../xdr/codec.js';
import type { DomainRef, HostEvent } from '../host/libvirt-host.js';
import {
  encodePacket,
  messageStatus,
  messageTypes,
  PROGRAM_VERSION,
  programs,
  type ProgramName,
} from './packet.js';
import {
  blockJobStatuses,
  blockJobTypes,
  domain,
  ioErrorActions,
  lifecycleOf,
  metadataKinds,
  string,
} from './wire.js';

/** Ids above are of newer libvirts: accepted like the others that never fire. VIR_DOMAIN_EVENT_ID_LAST is 27 in 9.0. */
const MAX_REGISTRATIONS = 1024;

export interface EventRow {
  /** virDomainEventID; null for the monitor's events, which are registered apart. */
  readonly id: number | null;
  readonly program: ProgramName;
  readonly procedure: number;
  readonly kind: HostEvent['kind'];
  readonly body: Codec<unknown>;
  /** The body for one registration; null when this event is not told this way. */
  message(callbackID: number, event: HostEvent): unknown;
}

type EventOf<K extends HostEvent['kind']> = Extract<HostEvent, { kind: K }>;
const head = { callbackID: i32, domain };

function tellAs<K extends HostEvent['kind'], const F extends Fields>(
  place: { readonly id: number | null; readonly program?: ProgramName; readonly procedure: number },
  kind: K,
  fields: F,
  detail: (event: EventOf<K>) => StructOf<F> | null,
): EventRow {
  return {
    program: 'remote',
    ...place,
    kind,
    body: struct({ ...head, ...fields }),
    message(callbackID, event: EventOf<K>) {
      const details = detail(event);
      return details === null ? null : { callbackID, domain: event.domain, ...details };
    },
  };
}

const ioError = { path: string, alias: string, action: i32 };
const ioErrorOf = (event: EventOf<'io-error'>): StructOf<typeof ioError> => ({
  path: event.path,
  alias: event.alias,
  action: ioErrorActions[event.action],
});

/** In the order in which one event is told: 8 before 16, as libvirt does. */
export const eventRows: readonly EventRow[] = [
  tellAs({ id: 0, procedure: 318 }, 'lifecycle', { event: i32, detail: i32 }, (event) =>
    lifecycleOf(event),
  ),
  tellAs({ id: 1, procedure: 319 }, 'reboot', {}, () => ({})),
  tellAs({ id: 4, procedure: 322 }, 'io-error', ioError, ioErrorOf),
  tellAs({ id: 6, procedure: 324 }, 'io-error', { ...ioError, reason: string }, (event) => ({
    ...ioErrorOf(event),
    reason: event.reason,
  })),
  tellAs(
    { id: 8, procedure: 326 },
    'block-job',
    { path: string, type: i32, status: i32 },
    (event) => (event.path === null ? null : { path: event.path, ...jobNumbers(event) }),
  ),
  tellAs(
    { id: 16, procedure: 339 },
    'block-job',
    { target: string, type: i32, status: i32 },
    (event) => ({
      target: event.target,
      ...jobNumbers(event),
    }),
  ),
  tellAs(
    { id: 23, procedure: 379 },
    'metadata',
    { type: i32, namespace: optional(string) },
    (event) => ({
      type: metadataKinds[event.type],
      namespace: event.namespace,
    }),
  ),
  tellAs(
    { id: 24, procedure: 385 },
    'block-threshold',
    { device: string, path: optional(string), threshold: u64, excess: u64 },
    (event) => ({
      device: event.device,
      path: event.path,
      threshold: event.thresholdBytes,
      excess: event.excessBytes,
    }),
  ),
  tellAs(
    { id: null, program: 'qemu', procedure: 6 },
    'monitor',
    { event: string, seconds: i64, micros: u32, details: optional(string) },
    ({ event, seconds, micros, details }) => ({ event, seconds, micros, details }),
  ),
];

/** A connection's end, told to clients that asked for it with procedure 360: virConnectCloseReason. */
export const closeReasons = { error: 0, endOfFile: 1, keepalive: 2, client: 3 } as const;

/** CONNECT_EVENT_CONNECTION_CLOSED. */
export function closePacket(reason: keyof typeof closeReasons): Buffer {
  const body = struct({ reason: i32 });
  return encodePacket(eventHeader('remote', 362), body, { reason: closeReasons[reason] });
}

interface Registration {
  readonly id: number | null;
  /** `null`: of every domain. */
  readonly uuid: string | null;
  /** For the monitor's events: which of them. */
  readonly accepts: (name: string) => boolean;
}

export interface MonitorFilter {
  /** `null`: every event. */
  readonly event: string | null;
  readonly ignoreCase: boolean;
}

export class Registrations {
  private readonly byCallback = new Map<number, Registration>();
  private nextCallback = 0;

  get size(): number {
    return this.byCallback.size;
  }

  /** Answers the callback id. Ids that never fire are accepted: `virsh event --all` gives up at the first refusal. */
  addDomainEvent(eventId: number, of: DomainRef | null): number {
    if (eventId < 0) throw new RequestError('INVALID_ARG', `unsupported event ID ${eventId}`);
    return this.add({ id: eventId, uuid: of?.uuid ?? null, accepts: () => true });
  }

  addMonitorEvent(filter: MonitorFilter, of: DomainRef | null): number {
    const { event, ignoreCase } = filter;
    const fold = (name: string): string => (ignoreCase ? name.toLowerCase() : name);
    const accepts = (name: string): boolean => event === null || fold(name) === fold(event);
    return this.add({ id: null, uuid: of?.uuid ?? null, accepts });
  }

  removeDomainEvent(callbackId: number): void {
    this.remove(callbackId, (registration) => registration.id !== null);
  }

  removeMonitorEvent(callbackId: number): void {
    this.remove(callbackId, (registration) => registration.id === null);
  }

  clear(): void {
    this.byCallback.clear();
  }

  /** What `event` means for this client, in the order to send. */
  packets(event: HostEvent): readonly Buffer[] {
    const packets: Buffer[] = [];
    for (const row of eventRows.filter(({ kind }) => kind === event.kind)) {
      for (const [callbackId, registration] of this.byCallback) {
        if (registration.id !== row.id || !concerns(registration, event)) continue;
        const message = row.message(callbackId, event);
        if (message === null) continue;
        packets.push(encodePacket(eventHeader(row.program, row.procedure), row.body, message));
      }
    }
    return packets;
  }

  private add(registration: Registration): number {
    if (this.size >= MAX_REGISTRATIONS) {
      throw new RequestError('INVALID_ARG', `more than ${MAX_REGISTRATIONS} event callbacks`);
    }
    const callbackId = this.nextCallback++;
    this.byCallback.set(callbackId, registration);
    return callbackId;
  }

  private remove(callbackId: number, isOfKind: (registration: Registration) => boolean): void {
    const registration = this.byCallback.get(callbackId);
    if (registration === undefined || !isOfKind(registration)) {
      throw new RequestError('INVALID_ARG', `domain event callback ${callbackId} not registered`);
    }
    this.byCallback.delete(callbackId);
  }
}

const jobNumbers = (event: EventOf<'block-job'>): { type: number; status: number } => ({
  type: blockJobTypes[event.type],
  status: blockJobStatuses[event.status],
});

function concerns(registration: Registration, event: HostEvent): boolean {
  if (registration.uuid !== null && registration.uuid !== event.domain.uuid) return false;
  return event.kind !== 'monitor' || registration.accepts(event.event);
}

/** The serial of events is 1 because libvirtd's is; clients do not look at it. */
const eventHeader = (program: ProgramName, procedure: number) => ({
  program: programs[program],
  version: PROGRAM_VERSION,
  procedure,
  type: messageTypes.event,
  serial: 1,
  status: messageStatus.ok,
});
