/**
 * The socket: accepts, identifies and serves peers. Frames arrive from the epoll worker; whatever is wrong with one ends that
 * connection with an error line and touches nobody else. It decides nothing about VPNs.
 */
import { randomInt } from 'node:crypto';
import { CALLER_LINE_BYTES, type Frame, STRANGER_LINE_BYTES } from '../ipc/frame.js';
import { isMethod, METHOD_FDS, RPC } from '../ipc/methods.js';
import { closeForeign } from '../kernel/closing.js';
import { Epoll } from '../kernel/epoll.js';
import type { EpollEvent } from '../kernel/epoll-worker.js';
import { BusinessError, ProtocolError } from '../model/errors.js';
import { refusal } from './authorize.js';
import { HANDLERS } from './calls.js';
import type { ServiceContext } from './context.js';
import { describeError } from './log.js';
import { Session } from './session.js';

/** A connection that has not said hello, or not finished a line, within this time is closed. */
const SILENCE_MS = 10_000;
/** Root is never turned away. */
const SESSIONS_MAXIMUM = 4096;
/** Who may not use the service leaves room for who may, under however many uids (subuid(5) gives a user thousands). */
const STRANGERS_MAXIMUM = 2048;
/** Of one uid: nobody can use up everybody's. */
const SESSIONS_PER_UID = 256;
/** With so many calls of one connection under way nothing more is read from it: what it sends waits in its own socket. */
const CALLS_PER_SESSION = 256;

export class Server {
  readonly #context: ServiceContext;
  readonly #epoll: Epoll;
  readonly #sessions = new Map<number, Session>();
  readonly #pidfds = new Map<number, Session>();
  readonly #silence: NodeJS.Timeout;
  #refusing = false;

  constructor(listenFd: number, context: Omit<ServiceContext, 'send'>) {
    this.#context = { ...context, send: (session, message) => this.#send(session, message) };
    this.#epoll = new Epoll(listenFd, (event) => this.#onEvent(event));
    this.#silence = setInterval(() => this.#closeSilent(), SILENCE_MS / 2);
    this.#silence.unref();
  }

  /** The thread that waits, for what else there is to wait for. */
  get epoll(): Epoll {
    return this.#epoll;
  }

  /** Written from another thread, ends the waiting one; see kernel/epoll.ts. */
  get wakeFd(): number {
    return this.#epoll.wakeFd;
  }

  /** From now on every new call is 2200002; those under way are answered. */
  refuse(): void {
    this.#refusing = true;
  }

  async close(): Promise<void> {
    clearInterval(this.#silence);
    await this.#epoll.stop();
    for (const session of [...this.#sessions.values()]) this.#close(session, false);
  }

  #onEvent(event: EpollEvent): void {
    if (event.kind === 'connection') return this.#accept(event.fd);
    if (event.kind === 'exited') {
      const ended = this.#pidfds.get(event.tag);
      if (ended) this.#close(ended);
      return;
    }
    const session = this.#sessions.get(event.tag);
    if (!session) {
      // Read before the session was closed: what came with it is nobody's.
      if (event.kind === 'data') for (const fd of event.fds) closeForeign(fd);
      return;
    }
    if (event.kind === 'end') return this.#close(session);
    if (!session.flush()) {
      if (event.kind === 'data') for (const fd of event.fds) closeForeign(fd);
      return this.#close(session);
    }
    if (event.kind === 'data') this.#read(session, event);
    else this.#resume(session);
  }

  #accept(fd: number): void {
    const session = Session.open(fd, (of) => (this.#mayUse(of) ? CALLER_LINE_BYTES : STRANGER_LINE_BYTES));
    if (!session) return void closeForeign(fd);
    const { uid } = session.peer;
    const mine = uid === 0 ? 0 : [...this.#sessions.values()].filter((other) => other.peer.uid === uid).length;
    const maximum = this.#mayUse(session) ? SESSIONS_MAXIMUM : STRANGERS_MAXIMUM;
    const isFull = uid !== 0 && (this.#sessions.size >= maximum || mine >= SESSIONS_PER_UID);
    if (isFull) {
      this.#context.log('warning', 'too-many-connections', { uid });
      return session.close();
    }
    session.tag = this.#epoll.addConnection(fd);
    this.#sessions.set(session.tag, session);
    if (session.pidfd >= 0) {
      session.pidfdTag = this.#epoll.addPidfd(session.pidfd);
      this.#pidfds.set(session.pidfdTag, session);
    }
  }

  #mayUse(session: Session): boolean {
    return refusal(this.#context.policy(), session.peer, 'destroy') === undefined;
  }

  #read(session: Session, { data, fds, truncated }: Extract<EpollEvent, { kind: 'data' }>): void {
    session.lastReadAtMs = performance.now();
    if (truncated) for (const fd of fds) closeForeign(fd);
    session.isReading = true;
    try {
      for (const frame of session.reader.push(data, truncated ? [] : fds)) {
        this.#serve(session, frame);
        // It did not take an answer and is closed, with the descriptors it had sent: the numbers may be somebody else's by now.
        if (session.closed) return;
      }
      if (truncated) throw new ProtocolError('too many descriptors in one message');
    } catch (error) {
      return this.#endWithError(session, error);
    } finally {
      session.isReading = false;
    }
    this.#resume(session);
  }

  /** An answer that tells why, then the end. The API's own reason comes first: a stranger's long line is a 202. */
  #endWithError(session: Session, error: unknown): void {
    const refused = refusal(this.#context.policy(), session.peer, 'destroy');
    const code =
      error instanceof ProtocolError && /not JSON$/.test(error.message) ? RPC.parseError : RPC.invalidRequest;
    const reason = error instanceof Error ? error.message : String(error);
    this.#context.log('debug', 'protocol-error', { uid: session.peer.uid, pid: session.peer.pid, reason });
    session.send({ jsonrpc: '2.0', id: null, error: refused?.toJSON() ?? { code, message: reason } });
    this.#close(session);
  }

  #serve(session: Session, { message, fds }: Frame): void {
    const { id, method, params = {} } = message;
    const answerable = typeof id === 'number' || typeof id === 'string';
    const reject = (code: number, text: string): void => {
      for (const fd of fds) closeForeign(fd);
      this.#send(session, { jsonrpc: '2.0', id: answerable ? id : null, error: { code, message: text } });
    };
    if (message.jsonrpc !== '2.0' || !answerable || typeof method !== 'string') {
      return reject(RPC.invalidRequest, 'a request has "jsonrpc": "2.0", an "id" and a "method"');
    }
    if (!isMethod(method)) return reject(RPC.methodNotFound, 'there is no such method; docs/protocol.md lists them');
    if (typeof params !== 'object' || params === null || Array.isArray(params)) {
      return reject(RPC.invalidRequest, '"params" is not an object');
    }
    if (fds.length !== METHOD_FDS[method]) {
      return reject(RPC.invalidRequest, `${method} carries ${METHOD_FDS[method]} descriptors, not ${fds.length}`);
    }
    if (!session.greeted && method !== 'hello') return reject(RPC.invalidRequest, 'the first request is hello');
    session.calls++;
    const done = (answer: object): void => {
      for (const fd of fds) closeForeign(fd);
      session.calls--;
      this.#send(session, { jsonrpc: '2.0', id, ...answer });
      if (session.calls === CALLS_PER_SESSION - 1) this.#resume(session);
    };
    try {
      if (this.#refusing) throw new BusinessError(2200002, undefined, 'the service is ending');
      const result = HANDLERS[method](this.#context, session, params as Record<string, unknown>, fds);
      if (result instanceof Promise) {
        result.then(
          (value) => done({ result: value }),
          (error) => done({ error: this.#toError(error, session, method) }),
        );
      } else {
        done({ result });
      }
    } catch (error) {
      done({ error: this.#toError(error, session, method) });
    }
  }

  /** The one place where errors of inside become errors of the API. The cause goes to the log, not to the caller. */
  #toError(error: unknown, session: Session, method: string): object {
    const { uid, pid } = session.peer;
    if (error instanceof BusinessError) {
      // Whoever may not use the service shall not fill its log either.
      const level = error.code === 202 ? 'debug' : 'info';
      this.#context.log(level, 'refused', { method, uid, pid, code: error.code, reason: error.message });
      return error.toJSON();
    }
    const reference = randomInt(0x10000, 0xfffff).toString(16);
    this.#context.log('error', 'failed', { method, uid, pid, reference, cause: describeError(error) });
    return new BusinessError(
      2200003,
      undefined,
      `the service's log has the cause under reference=${reference}`,
    ).toJSON();
  }

  #send(session: Session, message: object): void {
    if (session.closed) return;
    if (!session.send(message)) return this.#close(session);
    if (session.hasUnsent) this.#resume(session);
  }

  #resume(session: Session): void {
    // Not for each answer to what was read at once: that would let in more each time, and a peer that floods would be ahead of us.
    if (session.closed || session.isReading) return;
    const wantReadable = session.calls < CALLS_PER_SESSION;
    this.#epoll.resume(session.fd, session.tag, { wantReadable, wantWritable: session.hasUnsent });
  }

  #close(session: Session, watched = true): void {
    if (session.closed) return;
    this.#sessions.delete(session.tag);
    if (watched) this.#epoll.remove(session.fd);
    if (session.pidfd >= 0) {
      this.#pidfds.delete(session.pidfdTag);
      if (watched) this.#epoll.remove(session.pidfd);
    }
    session.close();
  }

  #closeSilent(): void {
    const now = performance.now();
    for (const session of this.#sessions.values()) {
      const silent = !session.greeted && now - session.openedAtMs > SILENCE_MS;
      const stuck = session.reader.pendingBytes > 0 && now - session.lastReadAtMs > SILENCE_MS;
      if (silent || stuck) this.#close(session);
    }
  }
}
