// Follows the serial line of the test guest in the file where QEMU appends it: what is acknowledged, since when.
// The lines are described in guest/writer.c.

import { closeSync, openSync, readSync } from 'node:fs';

import { until } from '../../src/std/deadline.js';
import { messageOf } from '../../src/std/errors.js';

export interface Line {
  /** When this side saw it, on the clock of `performance.now()`. */
  readonly atMs: number;
  readonly text: string;
}

export interface Ack {
  readonly atMs: number;
  readonly number: number;
}

/** The guest came up again with less on its disks than it was told to be safe: data was lost. */
export interface Setback {
  readonly acked: number;
  readonly start: number;
}

export class SerialWatch implements Disposable {
  readonly acks: Ack[] = [];
  /** All lines that are not acknowledgements. */
  readonly lines: Line[] = [];
  readonly setbacks: Setback[] = [];
  private readonly file: string;
  private readonly timer: NodeJS.Timeout;
  private readonly chunk = Buffer.alloc(65_536);
  private fd: number | null = null;
  private rest = '';
  private highest = 0;

  /** The file need not be there yet. It must be written in append mode, or a new QEMU's lines are not seen. */
  constructor(file: string, everyMs = 2) {
    this.file = file;
    this.timer = setInterval(() => this.read(), everyMs);
    this.timer.unref();
  }

  /** The highest number acknowledged so far, over all runs of the guest. */
  acked(): number {
    this.read();
    return this.highest;
  }

  /** How many lines there are now: a place to wait from. */
  mark(): number {
    this.read();
    return this.lines.length;
  }

  async waitAcked(number: number, timeoutMs = 60_000): Promise<void> {
    await this.wait(`number ${number} acknowledged`, timeoutMs, () =>
      this.acked() >= number ? true : null,
    );
  }

  /** Waits until `count` more numbers than now are acknowledged: the guest lives. */
  async waitProgress(count = 64, timeoutMs = 60_000): Promise<void> {
    await this.waitAcked(this.acked() + count, timeoutMs);
  }

  /** The first line holding `text` at or after a mark. */
  async waitLine(text: string, timeoutMs = 60_000, since = 0): Promise<Line> {
    return await this.wait(`line '${text}'`, timeoutMs, () => {
      this.read();
      return this.lines.slice(since).find((line) => line.text.includes(text)) ?? null;
    });
  }

  /** The longest time without an acknowledgement, among those touching the given span of `performance.now()`. */
  maxGapMs(fromMs: number, toMs: number): number {
    this.read();
    const gaps = this.acks
      .slice(1)
      .map((ack, i) => ({ from: this.acks[i]?.atMs ?? ack.atMs, to: ack.atMs }));
    const touching = gaps.filter((gap) => gap.to >= fromMs && gap.from <= toMs);
    return Math.max(0, ...touching.map((gap) => gap.to - gap.from));
  }

  [Symbol.dispose](): void {
    clearInterval(this.timer);
    if (this.fd !== null) closeSync(this.fd);
    this.fd = null;
  }

  private async wait<T>(what: string, timeoutMs: number, probe: () => T | null): Promise<T> {
    try {
      return await until(probe, timeoutMs, what, 2);
    } catch (cause) {
      const last = this.lines
        .slice(-4)
        .map((line) => line.text)
        .join(' | ');
      throw new Error(
        `guest ${this.file}: ${messageOf(cause)}; acknowledged ${this.highest}, last lines: ${last}`,
        { cause },
      );
    }
  }

  private read(): void {
    this.fd ??= openIfThere(this.file);
    if (this.fd === null) return;
    for (;;) {
      const bytes = readSync(this.fd, this.chunk, 0, this.chunk.length, null);
      if (bytes === 0) return;
      this.take(this.chunk.toString('latin1', 0, bytes));
    }
  }

  private take(text: string): void {
    const atMs = performance.now();
    const lines = (this.rest + text).split('\n');
    this.rest = lines.pop() ?? '';
    for (const line of lines) this.note({ atMs, text: line.trim() });
  }

  private note(line: Line): void {
    const ack = /^A (\d+)$/.exec(line.text);
    if (ack !== null) {
      const number = Number(ack[1]);
      this.acks.push({ atMs: line.atMs, number });
      this.highest = Math.max(this.highest, number);
      return;
    }
    this.lines.push(line);
    const ready = /READY start=(\d+)/.exec(line.text);
    if (ready !== null && Number(ready[1]) < this.highest)
      this.setbacks.push({ acked: this.highest, start: Number(ready[1]) });
  }
}

function openIfThere(file: string): number | null {
  try {
    return openSync(file, 'r');
  } catch {
    return null;
  }
}
