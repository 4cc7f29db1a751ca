// Storage that is full, fails or hangs below a folder, as the daemon's own calls meet it; QEMU's jobs meet the same
// (`FakeQemu.setHealth`).

import type { ImageStore } from '../../src/image/store.js';
import { BusyError, SystemError } from '../../src/std/errors.js';
import type { Health } from '../fake/job.js';

export class Ailing {
  private folder = '';
  private health: Health = 'ok';
  private readonly waiting: (() => void)[] = [];

  get isIll(): boolean {
    return this.health !== 'ok';
  }

  ail(folder: string, health: Health): void {
    this.folder = folder;
    this.health = health;
  }

  heal(): void {
    this.health = 'ok';
    for (const goOn of this.waiting.splice(0)) goOn();
  }

  over(images: ImageStore): ImageStore {
    const writes = (path: string) => this.meet(path, ['failed', 'nospace', 'hung']);
    const names = (path: string) => this.meet(path, ['failed', 'hung']);
    const reads = (path: string) => this.meet(path, ['hung']);
    return {
      stat: async (path) => (await reads(path), await images.stat(path)),
      info: async (path, format) => (await reads(path), await images.info(path, format)),
      isEmpty: async (path, format) => (await reads(path), await images.isEmpty(path, format)),
      create: async (image) => (await writes(image.path), await images.create(image)),
      copy: async (copy) => (await writes(copy.to), await images.copy(copy)),
      setBacking: async (path, backing) => (
        await writes(path),
        await images.setBacking(path, backing)
      ),
      commitOffline: async (overlay, base) => (
        await writes(base.path),
        await images.commitOffline(overlay, base)
      ),
      rename: async (from, to) => (await names(to), await images.rename(from, to)),
      remove: async (path) => (await names(path), await images.remove(path)),
      truncate: async (path) => (await names(path), await images.truncate(path)),
      sync: async (path) => (await names(path), await images.sync(path)),
      answer: async (path, timeoutMs) => {
        if (this.healthAt(path) === 'hung') throw new BusyError(`${path} (fsync): no answer`);
        await names(path);
        await images.answer(path, timeoutMs);
      },
      freeBytes: (folder) => images.freeBytes(folder),
    };
  }

  private healthAt(path: string): Health {
    return path.startsWith(`${this.folder}/`) ? this.health : 'ok';
  }

  private async meet(path: string, ills: readonly Health[]): Promise<void> {
    const health = this.healthAt(path);
    if (!ills.includes(health)) return;
    if (health === 'hung') return await new Promise((resolve) => this.waiting.push(resolve));
    const why = health === 'nospace' ? 'no space left on device' : 'input/output error';
    throw new SystemError(`${path}: ${why}`);
  }
}
