// What one client has set up with us, apart from bytes: opened or not, read-only or not, its registrations.

import { StateError } from '../std/errors.js';
import type { HostEvent, LibvirtHost } from '../host/libvirt-host.js';
import { Registrations } from './registrations.js';

export interface SessionOptions {
  readonly host: LibvirtHost;
  /** Forced by the socket the client came in by. */
  readonly readOnly: boolean;
  /** Sends an encoded event. */
  readonly send: (packet: Buffer) => void;
  /** The client promised to answer pings. */
  readonly onKeepalive: () => void;
  /** An event could not be encoded: a bug of the host. */
  readonly onBug: (error: unknown, where: string) => void;
}

export class Session {
  readonly host: LibvirtHost;
  readonly registrations = new Registrations();
  /** Whether the client wants to be told why the connection ends (procedure 360). */
  wantsCloseReason = false;
  private readonly options: SessionOptions;
  private state: 'new' | 'open' | 'closed' = 'new';
  private openedReadOnly = false;
  private unsubscribe: (() => void) | null = null;

  constructor(options: SessionOptions) {
    this.options = options;
    this.host = options.host;
  }

  get isOpen(): boolean {
    return this.state === 'open';
  }

  get readOnly(): boolean {
    return this.options.readOnly || this.openedReadOnly;
  }

  /** virConnectOpen. Once only: a second one could shed the first one's read-only flag. */
  open(mode: 'read-only' | 'read-write'): void {
    if (this.state !== 'new') throw new StateError('OPERATION_INVALID', 'connection already open');
    this.openedReadOnly = mode === 'read-only';
    this.state = 'open';
  }

  /** Ends what the client set up; it may still read its last replies. Idempotent. */
  close(): void {
    this.state = 'closed';
    this.registrations.clear();
    this.followHost();
  }

  startKeepalive(): void {
    this.options.onKeepalive();
  }

  /** Subscribes to the host while there is a registration, and not longer. Call it after each change of them. */
  followHost(): void {
    if (this.registrations.size > 0 && this.state === 'open') {
      this.unsubscribe ??= this.host.subscribe((event) => this.deliver(event));
      return;
    }
    this.unsubscribe?.();
    this.unsubscribe = null;
  }

  private deliver(event: HostEvent): void {
    try {
      for (const packet of this.registrations.packets(event)) this.options.send(packet);
    } catch (error) {
      this.options.onBug(error, `event ${event.kind}`);
    }
  }
}
