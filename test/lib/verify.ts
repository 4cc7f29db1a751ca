// Asks the verifier of the test guest what a set of images holds: an exact prefix of what the guest wrote, over all
// its disks, with nothing missing that was acknowledged?

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { guestFiles, type Writer } from './guest.js';
import { must } from './process.js';
import { testQemus } from './qemu.js';

/** The active image of one disk; its header leads to the rest of the chain, unless `node` says all of it. */
export type VerifyImage =
  | string
  | { readonly file: string; readonly format: 'qcow2' | 'raw' }
  | { readonly node: Readonly<Record<string, unknown>> };

export interface VerifyOptions {
  /** The highest number that the guest saw acknowledged, and that these images therefore have to hold. */
  readonly acked: number;
  /**
   * `settled`: stopped cleanly, pivoted, or frozen by a snapshot: exactly the state after one number.
   * `crashed`: QEMU was killed, so writes after the last flush may be there or not, one by one.
   */
  readonly state: 'settled' | 'crashed';
  /** What the guest was started with. */
  readonly writer?: Writer;
  readonly qemuImg?: string;
}

export interface Verdict {
  readonly ok: boolean;
  readonly top: number;
  readonly acked: number;
  readonly lostAcked: number;
  readonly prefixViolations: number;
  readonly holes: number;
  readonly torn: number;
  /** The first block that is wrong, for a person; empty when none is. */
  readonly first: string;
}

/** One image for each disk of the guest, in its order. Images in use are read as they are at this moment. */
export async function verifyChains(
  images: readonly VerifyImage[],
  options: VerifyOptions,
): Promise<Verdict> {
  const { acked, state, writer = {}, qemuImg = testQemus()[0].img } = options;
  const { verify } = await guestFiles();
  const directory = await mkdtemp(join(tmpdir(), 'bf-verify-'));
  try {
    const files = images.map((_, i) => join(directory, `${i}.raw`));
    await Promise.all(
      images.map((image, i) =>
        must(qemuImg, ['convert', '-U', '-O', 'raw', ...source(image), files[i] ?? '']),
      ),
    );
    const stream = [writer.span ?? 64, writer.seed ?? 1, writer.sync ?? 16, acked].map(String);
    const said = JSON.parse(await must(verify, [...stream, ...files])) as Omit<Verdict, 'ok'>; // printed by our own verify.c
    const wrong =
      said.lostAcked + said.prefixViolations + said.torn + (state === 'settled' ? said.holes : 0);
    return { ok: wrong === 0, ...said };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function source(image: VerifyImage): readonly string[] {
  if (typeof image === 'string') return [image];
  if ('node' in image) return [`json:${JSON.stringify(image.node)}`];
  return ['-f', image.format, image.file];
}
