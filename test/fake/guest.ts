// A guest that writes, and remembers what it was told is safe: the verifier of every test that ends in "no
// write is lost". Write n goes to some disk and block, and the block then holds n.

/** How the guest reaches its disks; the fake QEMU gives this to it. null: the I/O is held. */
export interface GuestDisks {
  readonly write: (disk: string, block: number, value: number) => 'done' | 'held';
  readonly flush: (disk: string) => 'done' | 'held';
}

interface Ledger {
  /** Writes to each block, oldest first. */
  readonly writes: Map<number, number[]>;
  /** The newest write that a flush has acknowledged. */
  acknowledged: number;
}

export class FakeGuest {
  readonly disks: readonly string[];
  private readonly blocks: number;
  private readonly flushEvery: number;
  private readonly ledgers: ReadonlyMap<string, Ledger>;
  private last = 0;

  /** `blocks`: how many blocks of each disk it uses; `flushEvery`: writes between two flushes of all disks. */
  constructor(disks: readonly string[], options: { blocks?: number; flushEvery?: number } = {}) {
    this.disks = disks;
    this.blocks = options.blocks ?? 256;
    this.flushEvery = options.flushEvery ?? 3;
    this.ledgers = new Map(disks.map((disk) => [disk, { writes: new Map(), acknowledged: 0 }]));
  }

  get writes(): number {
    return this.last;
  }

  /** The next write, and a flush when it is time for one. */
  step(io: GuestDisks): void {
    const seq = this.last + 1;
    const disk = this.disks[seq % this.disks.length] ?? '';
    const block = (Math.imul(seq, 2654435761) >>> 0) % this.blocks;
    if (io.write(disk, block, seq) === 'held') return;
    this.last = seq;
    const ledger = this.ledgerOf(disk);
    ledger.writes.set(block, [...(ledger.writes.get(block) ?? []), seq]);
    if (seq % this.flushEvery === 0) this.flush(io);
  }

  flush(io: GuestDisks): void {
    for (const disk of this.disks)
      if (io.flush(disk) === 'done') this.ledgerOf(disk).acknowledged = this.last;
  }

  /** The guest was killed and will boot from what `read` shows: writes that are not there never were. */
  reboot(disk: string, read: (block: number) => number): void {
    const ledger = this.ledgerOf(disk);
    for (const block of ledger.writes.keys()) ledger.writes.set(block, [read(block)]);
    ledger.acknowledged = this.last;
  }

  /**
   * What is wrong with a disk whose blocks `read` shows. `acknowledged`: every write that a flush acknowledged
   * is there, or a later one to its block. `exact`: the last write to every block is there.
   */
  problems(
    disk: string,
    read: (block: number) => number,
    want: 'acknowledged' | 'exact' = 'acknowledged',
  ): readonly string[] {
    const { writes, acknowledged } = this.ledgerOf(disk);
    return [...writes].flatMap(([block, seqs]) => {
      const found = read(block);
      const limit = want === 'exact' ? Infinity : acknowledged;
      const least = seqs.findLast((seq) => seq <= limit) ?? 0;
      const known = found === 0 || seqs.includes(found);
      if (known && found >= least) return [];
      return [`${disk}: block ${block} holds write ${found}, at least ${least} was acknowledged`];
    });
  }

  private ledgerOf(disk: string): Ledger {
    const ledger = this.ledgers.get(disk);
    if (ledger === undefined) throw new Error(`the guest has no disk ${disk}`);
    return ledger;
  }
}
