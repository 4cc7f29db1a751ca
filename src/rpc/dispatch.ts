// One call → one reply. Here, and nowhere else, is decided whether a call is served at all.

import { FerryError, RequestError, StateError } from '../std/errors.js';
import type { Awaitable } from '../host/libvirt-host.js';
import { toWireError } from './errors.js';
import {
  encodePacket,
  messageStatus,
  messageTypes,
  PROGRAM_VERSION,
  programs,
  type Header,
  type Packet,
} from './packet.js';
import type { Procedure } from './procedure.js';
import { procedureTables } from './procedures.js';
import type { Session } from './session.js';
import { wireError } from './wire.js';

/** Told of what is a mistake of ours: the client is only told that there is one. */
export type OnBug = (error: unknown, where: string) => void;

/**
 * Serves one call and encodes its reply. Never throws or rejects.
 *
 * What the host answers from memory is answered at once: a client that polls waits for the whole way of its call, and
 * a promise is a detour through the microtask queue.
 */
export function answer(session: Session, packet: Packet, onBug: OnBug): Awaitable<Buffer> {
  const { header, body } = packet;
  try {
    const procedure = find(header);
    admit(session, procedure);
    const result = procedure.invoke(session, procedure.args.read(body));
    if (!(result instanceof Promise)) return success(header, procedure, result);
    return result
      .then((value) => success(header, procedure, value))
      .catch((error: unknown) => failure(header, error, onBug));
  } catch (error) {
    return failure(header, error, onBug);
  }
}

const success = (header: Header, procedure: Procedure, result: unknown): Buffer =>
  encodePacket(replyTo(header, 'ok'), procedure.result, result);

function failure(header: Header, error: unknown, onBug: OnBug): Buffer {
  if (!(error instanceof FerryError)) onBug(error, `procedure ${header.procedure}`);
  return encodePacket(replyTo(header, 'error'), wireError, toWireError(error));
}

const replyTo = (header: Header, status: 'ok' | 'error'): Header => ({
  ...header,
  type: messageTypes.reply,
  status: messageStatus[status],
});

/** Texts as libvirt's `src/rpc/virnetserverprogram.c` has them: clients look for "unknown procedure". */
function find(header: Header): Procedure {
  if (header.type !== messageTypes.call) throw refusal(`Unexpected message type ${header.type}`);
  if (header.status !== messageStatus.ok) {
    throw refusal(`Unexpected message status ${header.status}`);
  }
  const table = tableOf(header);
  if (table === undefined) {
    throw refusal(`Cannot find program ${header.program} version ${header.version}`);
  }
  const found = table.get(header.procedure);
  if (found === undefined) throw refusal(`unknown procedure: ${header.procedure}`);
  return found;
}

function tableOf(header: Header): ReadonlyMap<number, Procedure> | undefined {
  if (header.version !== PROGRAM_VERSION) return undefined;
  if (header.program === programs.remote) return procedureTables.remote;
  if (header.program === programs.qemu) return procedureTables.qemu;
  return undefined;
}

function admit(session: Session, procedure: Procedure): void {
  if (!session.isOpen && !procedure.beforeOpen) {
    throw new StateError('OPERATION_INVALID', 'connection not open', { from: 'rpc' });
  }
  if (procedure.access === 'write' && session.readOnly) {
    throw new RequestError('OPERATION_DENIED', `read only access prevents ${procedure.name}`, {
      from: 'domain',
    });
  }
}

const refusal = (message: string): RequestError =>
  new RequestError('RPC', message, { from: 'rpc' });
