// Two ends of a byte stream in memory, with the flow control of a socket.

import { Duplex } from 'node:stream';

class End extends Duplex {
  peer: End | null = null;
  private resumePeer: (() => void) | null = null;

  override _read(): void {
    const resume = this.resumePeer;
    this.resumePeer = null;
    resume?.();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    if (this.peer === null || this.peer.destroyed) done();
    else if (this.peer.push(chunk)) done();
    else this.peer.resumePeer = done;
  }

  override _final(done: () => void): void {
    this.peer?.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (this.peer !== null && !this.peer.destroyed) this.peer.push(null);
    done(error);
  }
}

/** What is written to one end is read from the other; each holds `bytes` before it says stop. */
export function pipe(bytes = 65_536): readonly [Duplex, Duplex] {
  const options = { highWaterMark: bytes, emitClose: true };
  const [one, other] = [new End(options), new End(options)];
  one.peer = other;
  other.peer = one;
  return [one, other];
}
