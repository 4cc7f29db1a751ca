// The operations on image files that the product's effects need, as the fake offers them.

export type ImageFormat = 'qcow2' | 'raw';

export interface BackingRef {
  readonly path: string;
  readonly format: ImageFormat;
}

/** What the header and `stat` tell of one image. */
export interface ImageInfo {
  readonly path: string;
  readonly format: ImageFormat;
  readonly virtualSizeBytes: bigint;
  readonly actualSizeBytes: bigint;
  readonly backing: BackingRef | null;
  /** null for raw. */
  readonly clusterSizeBytes: number | null;
}

export interface CopyRequest {
  readonly from: string;
  readonly to: string;
}

export interface ImageStore {
  /** Fails when `path` exists. The backing file need not exist (`qemu-img create -u`). */
  create(image: {
    readonly path: string;
    readonly format: ImageFormat;
    readonly sizeBytes: bigint;
    readonly backing: BackingRef | null;
    readonly clusterSizeBytes?: number;
  }): Promise<void>;
  /** null: there is no such file. */
  info(path: string): Promise<ImageInfo | null>;
  /** A file that is not there is success. */
  remove(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** A byte copy of one file, header included; overwrites what is at `to`. */
  copy(request: CopyRequest): Promise<void>;
  /**
   * Merges the image into its backing file (`qemu-img commit`); the image is empty afterwards. `into`: whatever the
   * header names, and the image keeps its data (`commit -d` with an explicit chain).
   */
  commitOffline(path: string, into?: BackingRef | null): Promise<void>;
  /** No allocated cluster of its own. */
  isEmpty(path: string): Promise<boolean>;
  /** Rewrites the header's backing file, nothing else (`qemu-img rebase -u`). */
  setBacking(path: string, backing: BackingRef | null): Promise<void>;
  /** The file and its folder are on disk. */
  sync(path: string): Promise<void>;
}
