// Where the images of a move go and in what form, as its user said it. Plain data.

import type { Format } from '../block/layer.js';

export interface MoveForm {
  /** Folder of the move's own overlay on the source side; null: beside the live image. */
  readonly overlayDir: string | null;
  /** Images below the top one that are at the destination already are compared with the source's and taken over. */
  readonly shareBase: boolean;
  /** The chain becomes one image. */
  readonly flatten: boolean;
  /** Of the top image at the destination; null: as it is. */
  readonly format: Format | null;
  /** Of the same, a power of two from 64 KiB to 2 MiB; null: as it is, QEMU's default for an image that had none. */
  readonly clusterSizeBytes: bigint | null;
}

/** The whole chain, byte for byte. */
export const asItIs: MoveForm = {
  overlayDir: null,
  shareBase: false,
  flatten: false,
  format: null,
  clusterSizeBytes: null,
};
