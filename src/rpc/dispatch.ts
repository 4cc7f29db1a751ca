// One call → one reply. Here, and nowhere else, is decided whether a call is served at all.

import { FerryError, RequestError, StateError } from '../std/errors.js';
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

/**
 * Serves one call and encodes its reply. Never rejects.
 *
 * Decodes before the first `await`, so the bytes of `packet` may be reused when this returns its promise.
 */
export async function answer(
  session: Session,
  packet: Packet,
  onBug: (error: unknown, where: string) => void,
): Promise<Buffer> {
  const { header, body } = packet;
  try {
    const procedure = find(header);
    admit(session, procedure);
    const args = procedure.args.read(body);
    const result = await procedure.invoke(session, args);
    return encodePacket(replyTo(header, 'ok'), procedure.result, result);
  } catch (error) {
    if (!(error instanceof FerryError)) onBug(error, `procedure ${header.procedure}`);
    return encodePacket(replyTo(header, 'error'), wireError, toWireError(error));
  }
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
