// Two small tools for order: a lock that serves first come first served, and a stream of values with one reader.

/** First come, first served mutual exclusion. */
export class Lock {
  private tail: Promise<void> = Promise.resolve();
  private holders = 0;

  get busy(): boolean {
    return this.holders > 0;
  }

  /** `patience`: how long to wait for the turn, and the error when it does not come. */
  async run<T>(
    body: () => Promise<T>,
    patience: { readonly ms: number; readonly error: () => Error } | null = null,
  ): Promise<T> {
    const before = this.tail;
    let release: () => void = () => undefined;
    this.tail = new Promise((resolve) => (release = resolve));
    this.holders++;
    try {
      if (patience === null) await before;
      else await inTime(before, patience);
    } catch (error) {
      // Whoever waits behind still waits for who is before.
      this.holders--;
      void before.then(release);
      throw error;
    }
    try {
      return await body();
    } finally {
      this.holders--;
      release();
    }
  }
}

async function inTime(
  turn: Promise<void>,
  patience: { readonly ms: number; readonly error: () => Error },
): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(patience.error()), patience.ms);
  });
  try {
    await Promise.race([turn, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Values pushed by one side and read in order by the other; `end` finishes the reader, with an error if one is given. */
export class Stream<T> implements AsyncIterableIterator<T>, Disposable {
  private readonly values: T[] = [];
  private waiting: {
    resolve: (result: IteratorResult<T>) => void;
    reject: (error: unknown) => void;
  } | null = null;
  private ended: { error: unknown } | null = null;
  private readonly onDispose: () => void;

  constructor(onDispose: () => void = () => undefined) {
    this.onDispose = onDispose;
  }

  get length(): number {
    return this.values.length;
  }

  push(value: T): void {
    if (this.ended !== null) return;
    if (this.waiting === null) {
      this.values.push(value);
      return;
    }
    const reader = this.waiting;
    this.waiting = null;
    reader.resolve({ value, done: false });
  }

  end(error: unknown = null): void {
    if (this.ended !== null) return;
    this.ended = { error };
    const reader = this.waiting;
    this.waiting = null;
    if (reader === null) return;
    if (error === null) reader.resolve({ value: undefined, done: true });
    else reader.reject(error);
  }

  async next(): Promise<IteratorResult<T>> {
    const value = this.values.shift();
    if (value !== undefined) return { value, done: false };
    if (this.ended !== null) {
      // oxlint-disable-next-line typescript/only-throw-error -- handed on as it came
      if (this.ended.error !== null) throw this.ended.error;
      return { value: undefined, done: true };
    }
    return await new Promise((resolve, reject) => (this.waiting = { resolve, reject }));
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  [Symbol.dispose](): void {
    this.end();
    this.onDispose();
  }
}
