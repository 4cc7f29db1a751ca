// The threads that copy. Each works through what it is given in order; work goes to whoever has least of it.

import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { present } from '../std/assert.js';
import type { Answer, CopyPaths, Work } from './copy-work.js';

interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

interface Thread {
  readonly worker: Worker;
  readonly waiting: Map<number, Waiting>;
  readonly ended: Promise<void>;
}

/** More do not help one storage, and the guests want processors too. */
const mostThreads = 4;

export class CopyThreads implements AsyncDisposable {
  /** Two for each thread, so that none of them waits for this one to answer. */
  readonly lanes: number;
  private readonly paths: CopyPaths;
  private readonly count = Math.min(mostThreads, availableParallelism());
  private readonly threads: Thread[] = [];
  private lastId = 0;

  constructor(paths: CopyPaths) {
    this.paths = paths;
    this.lanes = 2 * this.count;
  }

  async run(work: Omit<Work, 'id'>): Promise<Answer> {
    const { worker, waiting } = this.next();
    const id = ++this.lastId;
    return await new Promise((resolve, reject) => {
      waiting.set(id, { resolve, reject });
      worker.postMessage({ ...work, id } satisfies Work);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { worker } of this.threads) worker.postMessage(null);
    await Promise.all(this.threads.map(({ ended }) => ended));
  }

  /** The first that has nothing to do, a new one, or the one with least. */
  private next(): Thread {
    const least = this.threads.toSorted((a, b) => a.waiting.size - b.waiting.size)[0];
    if (least !== undefined && (least.waiting.size === 0 || this.threads.length === this.count))
      return least;
    const thread = startThread(this.paths);
    this.threads.push(thread);
    // One that ended too early is given nothing more.
    void thread.ended.then(() => this.threads.splice(this.threads.indexOf(thread), 1));
    return thread;
  }
}

function startThread(paths: CopyPaths): Thread {
  const worker = new Worker(new URL('copy-worker.js', import.meta.url), { workerData: paths });
  const waiting = new Map<number, Waiting>();
  const give = (id: number): Waiting => {
    const found = present(waiting.get(id), `work ${id} was given`);
    waiting.delete(id);
    return found;
  };
  worker.on('message', (answer: Answer) => give(answer.id).resolve(answer));
  const failAll = (error: Error): void => {
    for (const id of waiting.keys()) give(id).reject(error);
  };
  worker.on('error', failAll);
  const ended = new Promise<void>((resolve) => {
    worker.on('exit', () => {
      failAll(new Error('a thread that copies ended too early'));
      resolve();
    });
  });
  return { worker, waiting, ended };
}
