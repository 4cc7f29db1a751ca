// An image made from a frozen one by qemu-img: another format, another cluster size, a chain in one. And the comparison of
// two chains by what a guest would read from them.
//
//   identities of all that is read ── an empty target ── 'begun' ── conversion ── sync
//     ── comparison with the source, read back ── identities again ── seal
//
// Nothing of it can be gone on with: a life that dies in it begins anew. Files are reached through `ConvertFiles` alone, so
// that the fault enumerators run this very code over a fake.

import type { Hashing } from './store.js';
import { newKey } from './pieces.js';
import type { CopyNote, CopyVerified, CopyWhole, FileIdentity, VerifyMode } from '../block/copy.js';
import { sameFile } from '../block/copy.js';
import type { Format } from '../block/layer.js';
import { StateError, SystemError } from '../std/errors.js';
import type { CopyReport } from './copying.js';
import { usualTuning } from './copying.js';
import type { Backing } from './store.js';

/** How long work on storage goes on. */
export interface Going {
  readonly signal: AbortSignal;
  /** Asked again and again. Null: as fast as it goes; 0: it stands still. */
  readonly limitBytesPerSecond: () => number | null;
  /** Called some times a second. */
  readonly onProgress: (report: CopyReport) => void;
}

/** What is made of which images. */
export interface Conversion {
  /** What is read, active first, each over the next whatever its header says. */
  readonly chain: readonly Backing[];
  readonly format: Format;
  readonly clusterSizeBytes: number | null;
  /** What lies below the result, active first: only what lies above that in `chain` is written. */
  readonly below: readonly Backing[];
}

export interface ConvertImage extends Conversion, Going {
  readonly to: string;
  readonly verify: VerifyMode;
  /** Durable when it resolves. */
  readonly save: (note: CopyNote) => Promise<void>;
}

/** Two chains that have to hold the same, active first. */
export interface CompareImages extends Going {
  readonly source: readonly Backing[];
  readonly target: readonly Backing[];
}

export interface Compared {
  /** Where the first difference is, for a guest; null: there is none. */
  readonly differsAt: bigint | null;
}

/** What a file holds on its storage, and how much of that the storage itself gave, by the kernel's accounts. */
export interface StoredFile {
  /** As `CopyWhole.root`. */
  readonly root: string;
  readonly bytes: number;
  readonly storageBytes: number;
}

/** The sources and the target of one conversion. The sources are only read. */
export interface ConvertFiles {
  /** Null: there is nothing at that path. */
  identity(path: string): Promise<FileIdentity | null>;
  /** What these images take on their storage. */
  dataBytes(chain: readonly Backing[]): Promise<bigint>;
  /** An empty file that is durable, in place of whatever was there. */
  begin(path: string): Promise<void>;
  /** Writes a new image; nothing of it has to be durable. */
  convert(to: string, conversion: Conversion, going: Going): Promise<void>;
  compare(images: CompareImages): Promise<Compared>;
  /** Reads a file as it is, in pieces of that length. */
  readBack(path: string, by: Hashing, going: Going): Promise<StoredFile>;
  /** All of the target is durable, its times too, and it belongs to whom the sources belong. */
  seal(path: string, like: string): Promise<FileIdentity>;
}

/**
 * Makes the image at `to`, in place of whatever an earlier life left there. Whole and durable when it resolves.
 *
 * @throws {StateError} OPERATION_ABORTED: the signal was aborted. OPERATION_INVALID: a source is not frozen.
 * @throws {SystemError} the destination does not hold what was written to it.
 */
export async function convertFrozen(
  files: ConvertFiles,
  request: ConvertImage,
): Promise<CopyWhole> {
  const { chain, to, signal, save } = request;
  const top = chain[0]?.path ?? '';
  const doing = `convert ${top} to ${to}`;
  const before = await identitiesOf(files, chain, doing);
  const totalBytes = await files.dataBytes(chain);
  throwIfAborted(signal, doing);
  // Before it is said that it was begun: who comes later and finds nothing there knows that the storage is away.
  await files.begin(to);
  const by = { pieceBytes, key: newKey() };
  await save({
    note: 'begun',
    source: before[0] as FileIdentity, // a chain is never empty
    ...by,
    totalBytes: Number(totalBytes),
  });
  await files.convert(to, request, request);
  throwIfAborted(signal, doing);
  // Durable before it is looked at: the comparison goes past the page cache.
  await files.seal(to, top);
  const { root, ...verified } = await verifiedOf(files, { ...request, by, totalBytes }, doing);
  const now = await identitiesOf(files, chain, doing);
  if (!now.every((file, i) => before[i] !== undefined && sameFile(file, before[i])))
    throw notFrozen(doing);
  throwIfAborted(signal, doing);
  return { how: 'convert', root, file: await files.seal(to, top), verified };
}

const { pieceBytes } = usualTuning;

/** qemu-img compares all or nothing, so a sample of it is all of it. */
async function verifiedOf(
  files: ConvertFiles,
  request: ConvertImage & { readonly by: Hashing; readonly totalBytes: bigint },
  doing: string,
): Promise<CopyVerified & { readonly root: string | null }> {
  const nothing = { bytes: 0, storageBytes: 0, repairedBytes: 0, seconds: 0 };
  if (request.verify === 'none') return { how: 'none', root: null, ...nothing };
  const began = performance.now();
  const target = [made(request), ...request.below];
  const half = halvesOf(request, request.totalBytes);
  const source = request.chain;
  const { differsAt } = await files.compare({ ...request, ...half(0n), source, target });
  if (differsAt !== null) throw notKept(doing, differsAt);
  throwIfAborted(request.signal, doing);
  // The same file past the cache in the same way: its accounts say whether the comparison came from the storage.
  const stored = await files.readBack(request.to, request.by, { ...request, ...half(1n) });
  const seconds = (performance.now() - began) / 1000;
  return { how: 'full', repairedBytes: 0, ...stored, seconds };
}

/** Two passes that are one of so many bytes for whoever watches. */
const halvesOf =
  ({ onProgress }: Going, bytes: bigint) =>
  (before: 0n | 1n): Pick<Going, 'onProgress'> => ({
    onProgress: ({ phase, doneBytes, totalBytes }) => {
      const half = totalBytes === 0n ? 0n : (bytes * doneBytes) / totalBytes / 2n;
      onProgress({ phase, doneBytes: (bytes * before) / 2n + half, totalBytes: bytes });
    },
  });

const made = ({ to, format }: ConvertImage): Backing => ({ path: to, format });

async function identitiesOf(
  files: ConvertFiles,
  chain: readonly Backing[],
  doing: string,
): Promise<readonly FileIdentity[]> {
  return await Promise.all(
    chain.map(async ({ path }) => {
      const found = await files.identity(path);
      if (found !== null) return found;
      throw new SystemError(
        `${doing}: ${path} is not there; bring it back before the guest needs it`,
        { sourceIntact: null },
      );
    }),
  );
}

function throwIfAborted(signal: AbortSignal, doing: string): void {
  if (signal.aborted) throw new StateError('OPERATION_ABORTED', `${doing}: canceled`);
}

const notFrozen = (doing: string): StateError =>
  new StateError(
    'OPERATION_INVALID',
    `${doing}: the source was written to meanwhile, so the copy is worth nothing; end whatever writes to it, then try again`,
    { sourceIntact: null },
  );

const notKept = (doing: string, at: bigint): SystemError =>
  new SystemError(
    `${doing}: verification: the destination does not hold what the source does, from byte ${at} of the disk; the guest stays on the source. Look into the kernel's log (dmesg), have that storage checked, and move to another one`,
  );
