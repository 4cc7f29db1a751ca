// Law 9: whether the targets of mirrors still answer, asked from outside QEMU. Towards one that does not, a stop, a
// flush, a transaction or a cancel would never return, and the guest would stand still with it.

import { localPath } from '../block/layer.js';
import type { DomainRecord } from '../domain/record.js';
import type { ImageStore } from '../image/store.js';
import { answerFuse } from './fuses.js';
import { mirrorsOf } from '../plan/mirror-end.js';
import { BusyError, StateError } from '../std/errors.js';

/** What lies dirty in the page cache is written out first, and that may take its time. */
const PATIENCE_MS = 10_000;
/** Of the page cache of a server nothing has to be written out but what is flushed now and then anyway. */
const FUSE_PATIENCE_MS = 5000;

/** @throws {StateError} one of them does not answer; nothing was done then. */
export async function checkTargets(
  images: ImageStore,
  record: DomainRecord,
  doing: string,
): Promise<void> {
  for (const { disk, mirror, record: known } of mirrorsOf(record)) {
    const path = localPath(mirror.image.source);
    const { fuse } = known;
    if (path === null && fuse === undefined) continue;
    const answer =
      fuse === undefined
        ? images.answer(path ?? '', PATIENCE_MS)
        : answerFuse(fuse, FUSE_PATIENCE_MS);
    await answer.catch((error: unknown) => {
      // One that says that it fails does answer, and QEMU hears the same.
      if (!(error instanceof BusyError)) return;
      throw new StateError(
        'OPERATION_INVALID',
        `${doing} ${record.name}: the mirror of disk '${disk.target}' does not answer: ${error.message}; ` +
          `the guest runs on, but would stand still with this; bring the storage back, or destroy the domain`,
        { cause: error },
      );
    });
  }
}
