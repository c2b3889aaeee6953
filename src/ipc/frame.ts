/**
 * Framing of the service's socket: JSON-RPC 2.0, one JSON object a line, and descriptors beside the stream. A line that
 * carries descriptors says `fds: n`, and they are sent with its first byte. docs/protocol.md is the whole protocol.
 *
 * Pure: bytes and numbers in, messages out. It closes nothing; whoever feeds it closes what `unclaimed()` returns.
 */
import { ProtocolError } from '../model/errors.js';

/** Before the sender has proven that it may use the service, and after. */
export const STRANGER_LINE_BYTES = 64 * 1024;
export const CALLER_LINE_BYTES = 4 * 1024 * 1024;
/** Descriptors one line may claim, and that may wait for a line. */
export const MAXIMUM_FDS = 8;

const NEWLINE = 0x0a;

/** One line: a JSON object, and the descriptors it claimed. */
export interface Frame {
  message: Record<string, unknown>;
  fds: number[];
}

export function encodeLine(message: object): Buffer {
  return Buffer.from(`${JSON.stringify(message)}\n`);
}

export class FrameReader {
  readonly #maximumLineBytes: () => number;
  /** The line so far, in a buffer of its own that grows by doubling: a line that comes in many pieces costs no more. */
  #buffer = Buffer.alloc(0);
  #length = 0;
  #fds: number[] = [];

  /** The limit is asked anew for each chunk: it rises when the sender has been judged. */
  constructor(maximumLineBytes: () => number = () => CALLER_LINE_BYTES) {
    this.#maximumLineBytes = maximumLineBytes;
  }

  /** Takes what one read brought and yields the lines that are complete. Throws ProtocolError; the stream is then dead. */
  *push(data: Uint8Array, fds: readonly number[] = []): Generator<Frame> {
    this.#fds.push(...fds);
    let start = 0;
    for (let end = data.indexOf(NEWLINE); end >= 0; end = data.indexOf(NEWLINE, start)) {
      this.#keep(data.subarray(start, end));
      start = end + 1;
      yield this.#frame();
    }
    this.#keep(data.subarray(start));
    if (this.#fds.length > MAXIMUM_FDS) throw new ProtocolError(`more than ${MAXIMUM_FDS} descriptors for one line`);
    if (this.#length === 0 && this.#fds.length > 0) {
      throw new ProtocolError(`${this.#fds.length} descriptors came that no line claims with "fds"`);
    }
  }

  /** Bytes of a line that is not complete yet. */
  get pendingBytes(): number {
    return this.#length;
  }

  /** Descriptors that no line has claimed, for closing. */
  unclaimed(): number[] {
    return this.#fds.splice(0);
  }

  #keep(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    const length = this.#length + bytes.length;
    const maximum = this.#maximumLineBytes();
    if (length > maximum) throw new ProtocolError(`line is longer than ${maximum} bytes`);
    if (length > this.#buffer.length) {
      const larger = Buffer.alloc(Math.max(length, 2 * this.#buffer.length));
      larger.set(this.#buffer.subarray(0, this.#length));
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.#length);
    this.#length = length;
  }

  #frame(): Frame {
    const line = this.#buffer.toString('utf8', 0, this.#length);
    this.#buffer = Buffer.alloc(0);
    this.#length = 0;
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch {
      throw new ProtocolError('line is not JSON');
    }
    if (typeof message !== 'object' || message === null || Array.isArray(message)) {
      throw new ProtocolError('line is not a JSON object');
    }
    const count = (message as { fds?: unknown }).fds ?? 0;
    if (typeof count !== 'number' || !Number.isInteger(count) || count < 0 || count > MAXIMUM_FDS) {
      throw new ProtocolError(`"fds" is not 0..${MAXIMUM_FDS}`);
    }
    if (count > this.#fds.length) throw new ProtocolError(`"fds" is ${count}, but ${this.#fds.length} came`);
    return { message: message as Record<string, unknown>, fds: this.#fds.splice(0, count) };
  }
}
