// Conversions and comparisons on this host: qemu-img over files that nobody writes to. Without `-U`, so that QEMU's own locks
// tell of somebody who does.

import * as fs from 'node:fs/promises';

import type { FileIdentity } from '../block/copy.js';
import { QemuError, StateError, SystemError, messageOf } from '../std/errors.js';
import { chainName } from './chain-name.js';
import type {
  CompareImages,
  Compared,
  Conversion,
  ConvertFiles,
  Going,
  StoredFile,
} from './convert.js';
import { readBackTarget } from './copy.js';
import { copyError } from './copy-error.js';
import type { CopyTool } from './copy-host.js';
import { HostCopyFiles, identityOf } from './copy-host.js';
import type { ToolEnd } from './paced-tool.js';
import { runPaced } from './paced-tool.js';
import type { Backing, Owner, Hashing } from './store.js';
import { syncFile } from './sync.js';
import { runTool } from './tool.js';

const MEASURE_TIMEOUT_MS = 60_000;

export class HostConvertFiles implements ConvertFiles {
  private readonly qemuImg: string;
  private readonly tool: CopyTool;
  private readonly owner: Owner | null;

  constructor(qemuImg: string, tool: CopyTool, owner: Owner | null) {
    this.qemuImg = qemuImg;
    this.tool = tool;
    this.owner = owner;
  }

  readonly identity = identityOf;

  async dataBytes(chain: readonly Backing[]): Promise<bigint> {
    const found = await Promise.all(
      chain.map(async ({ path }) => (await fs.stat(path, { bigint: true })).blocks * 512n),
    );
    return found.reduce((sum, bytes) => sum + bytes, 0n);
  }

  async begin(path: string): Promise<void> {
    // The same file: QEMU's lock would tell of a qemu-img of another life that still writes to it.
    try {
      // Nobody may read what its source is kept from him; `seal` says who may.
      await fs.writeFile(path, '', { mode: 0o600 });
      await syncFile(path);
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : null;
      const trouble = { side: 'target', doing: 'write', code, message: messageOf(error) } as const;
      throw copyError({ from: 'an image', to: path }, trouble, error);
    }
  }

  async convert(to: string, conversion: Conversion, going: Going): Promise<void> {
    const { chain } = conversion;
    const totalBytes = await this.dataBytes(chain);
    const run = async (cache: string): Promise<ToolEnd> =>
      await this.run(
        ['convert', '-p', '-t', cache, ...made(conversion), chainName(chain), to],
        going,
        { phase: 'copying', totalBytes },
      );
    // Past the page cache: what would be read back from memory proves nothing, and guests could use that memory.
    let ended = await run('none');
    if (ended.code !== 0 && isRefusal(ended)) ended = await run('writeback');
    if (ended.code !== 0) throw conversionError(chain[0]?.path ?? '', to, ended, going.signal);
  }

  async compare({ source, target, ...going }: CompareImages): Promise<Compared> {
    const totalBytes = await this.dataBytes(source);
    const run = async (cache: string): Promise<ToolEnd> =>
      await this.run(['compare', '-p', '-T', cache, chainName(source), chainName(target)], going, {
        phase: 'verifying',
        totalBytes,
      });
    let ended = await run('none');
    if (ended.code !== 0 && isRefusal(ended)) ended = await run('writeback');
    const differs = /mismatch at offset (\d+)/.exec(ended.stdout)?.[1];
    if (ended.code === 0) return { differsAt: null };
    if (ended.code === 1 && differs !== undefined) return { differsAt: BigInt(differs) };
    const doing = `compare ${source[0]?.path} with ${target[0]?.path}`;
    if (going.signal.aborted) throw new StateError('OPERATION_ABORTED', `${doing}: canceled`);
    throw new QemuError(`${doing}: ${wordsOf(ended)}`);
  }

  async readBack(path: string, { pieceBytes, key }: Hashing, going: Going): Promise<StoredFile> {
    await using files = new HostCopyFiles({ from: path, to: path, key }, this.tool, null);
    return await readBackTarget(files, pieceBytes, going);
  }

  async seal(path: string, like: string): Promise<FileIdentity> {
    const { mode } = await fs.stat(like);
    await fs.chmod(path, mode & 0o777);
    if (this.owner !== null) await fs.chown(path, this.owner.uid, this.owner.gid);
    await syncFile(path);
    const found = await identityOf(path);
    if (found === null) throw new SystemError(`${path}: somebody removed it`);
    return found;
  }

  /** What the result takes at most. */
  async measure(conversion: Conversion): Promise<bigint> {
    const { chain, format } = conversion;
    // Of a raw image qemu-img says its whole size; what is written is what holds data.
    if (format === 'raw') return await this.dataBytes(chain);
    const args = ['measure', '-U', '--output=json', ...formOf(conversion), chainName(chain)];
    const said = JSON.parse(await runTool(this.qemuImg, args, MEASURE_TIMEOUT_MS)) as unknown;
    const required =
      typeof said === 'object' && said !== null && 'required' in said ? said.required : null;
    if (typeof required !== 'number') throw new QemuError(`measure ${chain[0]?.path}: no size`);
    return BigInt(required);
  }

  private async run(
    args: readonly string[],
    { signal, limitBytesPerSecond, onProgress }: Going,
    { phase, totalBytes }: { readonly phase: 'copying' | 'verifying'; readonly totalBytes: bigint },
  ): Promise<ToolEnd> {
    return await runPaced(this.qemuImg, args, {
      signal,
      limitBytesPerSecond,
      onShare: (share) => {
        const doneBytes = (totalBytes * BigInt(Math.floor(share * 10_000))) / 10_000n;
        onProgress({ phase, doneBytes, totalBytes });
      },
    });
  }
}

const formOf = ({ format, clusterSizeBytes }: Conversion): readonly string[] => [
  '-O',
  format,
  ...(clusterSizeBytes === null ? [] : ['-o', `cluster_size=${clusterSizeBytes}`]),
];

function made(conversion: Conversion): readonly string[] {
  const [base] = conversion.below;
  const onto = base === undefined ? [] : ['-B', base.path, '-F', base.format];
  return [...formOf(conversion), ...onto];
}

/** A file system without O_DIRECT, in QEMU's words (block/file-posix.c). */
const isRefusal = ({ stderr }: ToolEnd): boolean => /O_DIRECT|Invalid argument/.test(stderr);

const wordsOf = ({ stderr, stdout, code }: ToolEnd): string =>
  stderr || stdout.split('\r').at(-1)?.trim() || `qemu-img ended with ${code ?? 'a signal'}`;

/** strerror(3) of what a person can do something about. */
const codes: Readonly<Record<string, string>> = {
  'No space left on device': 'ENOSPC',
  'Disk quota exceeded': 'EDQUOT',
  'File too large': 'EFBIG',
  'Input/output error': 'EIO',
  'Read-only file system': 'EROFS',
  'Permission denied': 'EACCES',
  'No such file or directory': 'ENOENT',
};

function conversionError(from: string, to: string, ended: ToolEnd, signal: AbortSignal): Error {
  if (signal.aborted)
    return new StateError('OPERATION_ABORTED', `convert ${from} to ${to}: canceled`);
  const words = wordsOf(ended);
  const known = Object.keys(codes).find((text) => words.includes(text));
  if (known === undefined) return new QemuError(`convert ${from} to ${to}: ${words}`);
  const side = /reading|open 'json:|open json:/.test(words) ? 'source' : 'target';
  const doing = side === 'source' ? 'read' : 'write';
  return copyError({ from, to }, { side, doing, code: codes[known] ?? null, message: words });
}
