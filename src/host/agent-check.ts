// Whether the guest has an agent that answers, asked before anything is touched that counts on it.

import type { DomainRecord } from '../domain/record.js';
import { StateError, messageOf } from '../std/errors.js';
import type { Host } from './host.js';

/** @throws StateError naming what is missing; within 10 s, whatever the guest does. */
export async function checkAgent(
  host: Host,
  { uuid, name }: DomainRecord,
  option: '--quiesce' | '--trim',
): Promise<void> {
  const refuse = (text: string, cause?: unknown): StateError =>
    new StateError('OPERATION_INVALID', `move ${name} ${option}: ${text}`, { cause });
  const agent = host.guestOf(uuid).agent();
  if (agent === null)
    throw refuse(
      `the domain has no channel to a guest agent; add <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>, or move without ${option}`,
    );
  const isFrozen = await agent.isFrozen().catch((cause: unknown) => {
    throw refuse(
      `its agent does not answer (${messageOf(cause)}); start qemu-guest-agent in the guest, or move without ${option}`,
      cause,
    );
  });
  if (isFrozen)
    throw refuse(
      'the file systems of the guest are frozen already, by somebody else; thaw them first',
    );
}
