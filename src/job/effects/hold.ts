// Images of a domain that is shut off: held against writers, and as they were when the plan was made.

import type { FileIdentity } from '../../block/copy.js';
import type { ImageStore } from '../../image/store.js';
import type { HeldImage } from '../../plan/step.js';
import { StateError } from '../../std/errors.js';
import type { EffectContext } from '../effect.js';

type Of = Pick<EffectContext, 'operation'>;

const holderOf = ({ operation }: Of): string => `operation ${operation}`;

/** @throws {StateError} somebody writes to one of them, or did. */
export async function hold(held: readonly HeldImage[], images: ImageStore, of: Of): Promise<void> {
  await images.hold(
    holderOf(of),
    held.map(({ path }) => path),
  );
  for (const { path, file } of held) {
    const now = await images.identity(path);
    if (now !== null && isSame(now, file)) continue;
    const what = now === null ? 'is gone' : 'was written to';
    throw new StateError(
      'OPERATION_INVALID',
      `image ${path} ${what} since the move was planned, so its copy would be worth nothing; end whatever writes to it, then move again`,
      { sourceIntact: null },
    );
  }
}

/** Another mount of the same storage may number its files anew. */
const isSame = (a: FileIdentity, b: FileIdentity): boolean =>
  a.sizeBytes === b.sizeBytes && a.mtimeNs === b.mtimeNs;

export const letGo = async (images: ImageStore, of: Of): Promise<void> =>
  await images.letGo(holderOf(of));
