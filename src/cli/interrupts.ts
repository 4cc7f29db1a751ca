// Ctrl-C while an operation is watched: a person is asked what he means, for the operation goes on in the daemon; a second
// Ctrl-C, or one where nobody can be asked, ends the watching only.

import type { EventEmitter } from 'node:events';
import type { Interface } from 'node:readline';
import { createInterface } from 'node:readline';

import { messageOf } from '../std/errors.js';

export interface Terminal {
  /** Gives SIGINT: the process. */
  readonly signals: Pick<EventEmitter, 'on' | 'off'>;
  /** Null: nobody is there to be asked. */
  readonly input: NodeJS.ReadableStream | null;
  readonly write: (text: string) => void;
}

export interface Watched {
  readonly cancel: () => Promise<void>;
  /** Leaves the terminal at the start of a line. */
  readonly makeRoom: () => void;
}

const question =
  'ferry: [d]etach (it goes on in the daemon), [c]ancel, or Enter to go on watching: ';

export class Interrupts implements Disposable {
  private readonly terminal: Terminal;
  private readonly watched: Watched;
  private readonly detached = new AbortController();
  private asking: Interface | null = null;
  private readonly onSignal = (): void => this.interrupt();

  constructor(terminal: Terminal, watched: Watched) {
    this.terminal = terminal;
    this.watched = watched;
    terminal.signals.on('SIGINT', this.onSignal);
  }

  /** Aborted when the person stops watching. */
  get signal(): AbortSignal {
    return this.detached.signal;
  }

  /** Whether the terminal has a question on it, which progress must not be drawn over. */
  get isAsking(): boolean {
    return this.asking !== null;
  }

  [Symbol.dispose](): void {
    this.terminal.signals.off('SIGINT', this.onSignal);
    // It has ended under the question.
    if (this.isAsking) this.terminal.write('\n');
    this.close();
  }

  private interrupt(): void {
    const { input, write } = this.terminal;
    if (this.isAsking) write('\n');
    if (input === null || this.isAsking) return this.detach();
    this.watched.makeRoom();
    write(question);
    // Not a terminal to readline: it would take Ctrl-C for itself.
    const asking = createInterface({ input, terminal: false });
    this.asking = asking;
    asking.on('line', (line) => void this.answered(line.trim().toLowerCase()));
    // Who closes his end cannot be asked any more.
    asking.on('close', () => this.asking === asking && this.detach());
  }

  private async answered(answer: string): Promise<void> {
    if (answer === 'd' || answer === 'detach') return this.detach();
    if (answer === 'c' || answer === 'cancel') {
      this.close();
      await this.watched.cancel().catch((error: unknown) => {
        this.watched.makeRoom();
        this.terminal.write(`ferry: ${messageOf(error)}\n`);
      });
    } else if (answer === '') this.close();
    else this.terminal.write(question);
  }

  private detach(): void {
    this.close();
    this.detached.abort();
  }

  private close(): void {
    const { asking } = this;
    this.asking = null;
    asking?.close();
  }
}
