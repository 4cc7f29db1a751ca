// `ferry seal`: a domain is stopped so that its mirrors end with both sides equal, before its host is.

import { planStop } from '../plan/lifecycle.js';
import { isRefusal, needLive } from '../plan/refuse.js';
import { refuse } from '../plan/refuse.js';
import { filesOf } from './context.js';
import { signalDomain } from './domain-verbs.js';
import type { Host } from './host.js';
import { SEAL_MS } from './reconcile.js';
import { StateError } from '../std/errors.js';

/**
 * Asks the guest to power off, which seals its mirrors as any poweroff does; one that has not within `timeoutMs` is
 * stopped where it stands, sealed, and ended.
 */
export async function sealDomain(host: Host, uuid: string, timeoutMs: number): Promise<void> {
  const live = needLive(host.known.domain(uuid));
  if (isRefusal(live)) throw live.refusal;
  host.sealing.add(uuid);
  try {
    if (live.state.state === 'running' && timeoutMs > 0) {
      const off = untilStopped(host, uuid, live.id, timeoutMs);
      await signalDomain(host, uuid, 'shutdown');
      if (await off) return;
    }
    const gone = new StateError('OPERATION_INVALID', 'domain is not running');
    await host
      .operate(uuid, (record) =>
        record?.live == null
          ? refuse(gone)
          : planStop(record, record.live, 'destroyed', {
              pidFile: filesOf(host.context.config, uuid, record.name).pidFile,
              nowSeconds: host.nowSeconds,
              sealMs: SEAL_MS,
            }),
      )
      .catch((error: unknown) => {
        if (error !== gone) throw error;
      });
  } finally {
    host.sealing.delete(uuid);
  }
}

/** Whether the domain stopped in time. */
function untilStopped(host: Host, uuid: string, id: number, timeoutMs: number): Promise<boolean> {
  const isOff = (): boolean => host.known.find(uuid)?.live?.id !== id;
  return new Promise((resolve) => {
    const end = (stopped: boolean): void => {
      clearTimeout(timer);
      unlisten();
      resolve(stopped);
    };
    const timer = setTimeout(() => end(isOff()), timeoutMs);
    const unlisten = host.known.onTold(({ domain }) => {
      if (domain === uuid && isOff()) end(true);
    });
    if (isOff()) end(true);
  });
}
