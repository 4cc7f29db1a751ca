// The threads of one copy. Started when there is work for them; each piece goes to whoever has least of it. To start one
// takes a tenth of a second of a processor, so they are kept for a while for the copy that comes next.

import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { present } from '../std/assert.js';
import type { Answer, CopyPaths, ToWorker, Work } from './copy-work.js';

interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

interface Thread {
  readonly worker: Worker;
  readonly waiting: Map<number, Waiting>;
  readonly ended: Promise<void>;
  isOver: boolean;
}

/** More do not help one storage, and the guests want processors too. */
const mostThreads = 4;
const threadsOfCopy = Math.min(mostThreads, availableParallelism());

export class CopyThreads implements AsyncDisposable {
  /** Two for each thread, so that none of them waits for this one to answer. */
  readonly lanes = 2 * threadsOfCopy;
  private readonly paths: CopyPaths;
  private readonly threads: Thread[] = [];
  private lastId = 0;

  constructor(paths: CopyPaths) {
    this.paths = paths;
  }

  async run(work: Omit<Work, 'id'>): Promise<Answer> {
    const { worker, waiting } = this.next();
    const id = ++this.lastId;
    return await new Promise((resolve, reject) => {
      waiting.set(id, { resolve, reject });
      post(worker, { ...work, id });
    });
  }

  /** Those that still work at something that nobody waits for any more come to their end first. */
  async [Symbol.asyncDispose](): Promise<void> {
    const [free, busy] = [true, false].map((isFree) =>
      this.threads.filter(({ waiting }) => (waiting.size === 0) === isFree),
    );
    spares.put(free ?? []);
    for (const { worker } of busy ?? []) post(worker, null);
    await Promise.all((busy ?? []).map(({ ended }) => ended));
  }

  /** The first that has nothing to do, a further one, or the one with least. */
  private next(): Thread {
    // One that ended too early is given nothing more.
    const there = this.threads.filter(({ isOver }) => !isOver);
    const least = there.toSorted((a, b) => a.waiting.size - b.waiting.size)[0];
    if (least !== undefined && (least.waiting.size === 0 || there.length === threadsOfCopy))
      return least;
    const thread = spares.take();
    post(thread.worker, this.paths);
    this.threads.push(thread);
    return thread;
  }
}

/** A copy comes soon: as many threads as one of them needs are there when it does. */
export const warmUp = (): void => spares.fill();

const spareMs = 120_000;

/** Threads without a copy. They keep no process alive, and end when none comes. */
class Spares {
  private threads: readonly Thread[] = [];
  private timer: NodeJS.Timeout | null = null;

  take(): Thread {
    const [first, ...others] = this.threads.filter(({ isOver }) => !isOver);
    this.threads = others;
    const thread = first ?? startThread();
    thread.worker.ref();
    return thread;
  }

  put(threads: readonly Thread[]): void {
    for (const { worker } of threads) worker.unref();
    this.threads = [...this.threads, ...threads];
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = setTimeout(() => this.drop(), spareMs).unref();
  }

  fill(): void {
    const missing = Math.max(0, threadsOfCopy - this.threads.length);
    this.put(Array.from({ length: missing }, startThread));
  }

  private drop(): void {
    for (const { worker } of this.threads) post(worker, null);
    this.threads = [];
  }
}

const spares = new Spares();

const post = (worker: Worker, message: ToWorker): void => worker.postMessage(message);

function startThread(): Thread {
  const worker = new Worker(new URL('copy-worker.js', import.meta.url));
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
      thread.isOver = true;
      failAll(new Error('a thread that copies ended too early'));
      resolve();
    });
  });
  const thread: Thread = { worker, waiting, ended, isOver: false };
  return thread;
}
