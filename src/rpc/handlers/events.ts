// Asking for events, and no longer asking. What they carry is in `registrations.ts`.

import { RequestError } from '../../std/errors.js';
import { i32, optional } from '../../xdr/codec.js';
import { procedure } from '../procedure.js';
import { domain, string } from '../wire.js';

/** VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_*. */
const monitorEventFlags = { regex: 1, ignoreCase: 2 } as const;

export const eventProcedures = [
  procedure({
    number: 316,
    name: 'virConnectDomainEventRegisterAny',
    access: 'read',
    args: { eventId: i32, domain: optional(domain) },
    result: { callbackId: i32 },
    call(session, args) {
      const callbackId = session.registrations.addDomainEvent(args.eventId, args.domain);
      session.followHost();
      return { callbackId };
    },
  }),
  procedure({
    number: 317,
    name: 'virConnectDomainEventDeregisterAny',
    access: 'read',
    args: { callbackId: i32 },
    result: {},
    call(session, { callbackId }) {
      session.registrations.removeDomainEvent(callbackId);
      session.followHost();
    },
  }),
];

export const monitorEventProcedures = [
  procedure({
    number: 4,
    name: 'virConnectDomainQemuMonitorEventRegister',
    access: 'write',
    args: { domain: optional(domain), event: optional(string) },
    flags: monitorEventFlags,
    result: { callbackId: i32 },
    call(session, { event, domain: of }, { regex, ignoreCase }) {
      // A pattern of a client can keep the one thread of this process busy for ever; a name cannot.
      if (regex)
        throw new RequestError('ARGUMENT_UNSUPPORTED', 'monitor events by regular expression');
      const callbackId = session.registrations.addMonitorEvent({ event, ignoreCase }, of);
      session.followHost();
      return { callbackId };
    },
  }),
  procedure({
    number: 5,
    name: 'virConnectDomainQemuMonitorEventDeregister',
    access: 'write',
    args: { callbackId: i32 },
    result: {},
    call(session, { callbackId }) {
      session.registrations.removeMonitorEvent(callbackId);
      session.followHost();
    },
  }),
];
