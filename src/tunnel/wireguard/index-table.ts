/**
 * The 32-bit indices by which a peer tells us which session or handshake a message is for (WireGuard paper, section 5.4). They
 * are random, so that whoever is not on the path cannot guess one; a handshake's index becomes its session's.
 *
 * Indices are signed numbers here: every one of them then is a small integer to V8, and a look-up allocates nothing.
 */
import type { Session } from './session.js';

export class IndexTable<Peer> {
  readonly #random: (bytes: number) => Uint8Array;
  readonly #sessions = new Map<number, Session<Peer>>();
  /** Whose initiation waits for its response. */
  readonly #initiations = new Map<number, Peer>();
  /** Most datagrams are for the same session as the one before. */
  #last: Session<Peer> | undefined;

  constructor(random: (bytes: number) => Uint8Array) {
    this.#random = random;
  }

  get size(): number {
    return this.#sessions.size + this.#initiations.size;
  }

  /** One that nobody has. */
  fresh(): number {
    for (;;) {
      const bytes = this.#random(4);
      const index = new DataView(bytes.buffer, bytes.byteOffset).getInt32(0, true);
      if (!this.#sessions.has(index) && !this.#initiations.has(index)) return index;
    }
  }

  sessionAt(index: number): Session<Peer> | undefined {
    const last = this.#last;
    if (last !== undefined && last.localIndex === index) return last;
    const session = this.#sessions.get(index);
    if (session !== undefined) this.#last = session;
    return session;
  }

  initiatorAt(index: number): Peer | undefined {
    return this.#initiations.get(index);
  }

  addInitiation(index: number, peer: Peer): void {
    this.#initiations.set(index, peer);
  }

  removeInitiation(index: number): void {
    this.#initiations.delete(index);
  }

  addSession(session: Session<Peer>): void {
    this.#initiations.delete(session.localIndex);
    this.#sessions.set(session.localIndex, session);
  }

  removeSession(session: Session<Peer>): void {
    this.#sessions.delete(session.localIndex);
    if (this.#last === session) this.#last = undefined;
  }
}
