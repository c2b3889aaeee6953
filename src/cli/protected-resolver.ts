/**
 * Finds the addresses of a peer's name past the VPN that leads to it. While its tunnel does not work, a question asked the usual
 * way goes into it, as all of this user's traffic does; under lockdown it goes nowhere before there is a VPN. So the questions of
 * this resolver leave by a protected socket, and go to the machine's own name servers: those of resolv.conf(5) now, without the
 * VPN's, then those that were there before the VPN. While root's VPN is up vpnd keeps what resolv.conf would be without it beside it.
 *
 * Only DNS over UDP: no hosts file, no search domains, no other name services. What these knew when the tunnel began is kept.
 */
import { randomInt } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { canonicalAddress } from '../model/address.js';
import type { VpnConnection } from '../vpn/connection.js';
import { UDPSocket } from '../vpn/socket-udp.js';
import { decodeAnswer, encodeQuestion, saysNoSuchName, TYPE_A, TYPE_AAAA } from './dns-message.js';

const RESOLV_CONF = '/etc/resolv.conf';
/** What systemd-resolved asks when resolv.conf says to ask systemd-resolved. */
const OF_RESOLVED = '/run/systemd/resolve/resolv.conf';
const DNS_PORT = 53;
const PATIENCE_MS = 2_000;
/** Asked in one attempt; there is another when the tunnel still does not work. */
const MAX_SERVERS = 6;

export class ProtectedResolver {
  readonly #connection: VpnConnection;
  readonly #ofVpn: ReadonlySet<string>;
  readonly #before: readonly string[];

  /** To be made before the VPN is set up. `ofVpn`: the VPN's servers, which are behind the tunnel. */
  constructor(connection: VpnConnection, ofVpn: readonly string[]) {
    this.#connection = connection;
    this.#ofVpn = new Set(ofVpn);
    this.#before = nameServers();
  }

  /**
   * Literals, IPv4 first. Rejects as node's lookup() does: ENOTFOUND when somebody knew that there is no such name, or no address
   * of it, EAI_AGAIN when nobody knew; and when no socket can be had or protected.
   */
  async resolve(host: string): Promise<string[]> {
    const now = nameServers().filter((server) => !this.#ofVpn.has(server));
    let code = 'EAI_AGAIN';
    for (const server of [...new Set([...now, ...this.#before])].slice(0, MAX_SERVERS)) {
      const addresses = await this.#ask(server, host);
      if (addresses !== undefined && addresses.length > 0) return addresses;
      if (addresses !== undefined) code = 'ENOTFOUND';
    }
    throw Object.assign(new Error(`${host} is not found`), { code });
  }

  /** A socket for every attempt: its port is half of what keeps strangers from answering. */
  async #ask(server: string, host: string): Promise<string[] | undefined> {
    const questions = [TYPE_A, TYPE_AAAA].flatMap((type) => encodeQuestion(randomInt(0x10000), host, type) ?? []);
    const socket = new UDPSocket();
    try {
      await this.#connection.protect(await socket.getSocketFd());
      return await exchange(socket, server, questions);
    } finally {
      await socket.close();
    }
  }
}

/** Empty when all questions have been answered, with nothing; undefined when the server did not know, or did not say. */
function exchange(socket: UDPSocket, server: string, questions: readonly Buffer[]): Promise<string[] | undefined> {
  const answers: (string[] | undefined)[] = questions.map(() => undefined);
  const isComplete = () => answers.length > 0 && answers.every((each) => each !== undefined);
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(late);
      const found = answers.flatMap((addresses) => addresses ?? []);
      resolve(found.length > 0 || isComplete() ? found : undefined);
    };
    const late = setTimeout(finish, PATIENCE_MS);
    socket.on('message', ({ message, remoteInfo }) => {
      if (canonicalAddress(remoteInfo.address) !== server || remoteInfo.port !== DNS_PORT) return;
      const bytes = new Uint8Array(message);
      for (const [index, question] of questions.entries()) {
        answers[index] ??= saysNoSuchName(bytes, question) ? [] : decodeAnswer(bytes, question);
      }
      if (isComplete()) finish();
    });
    const sent = questions.map((data) => socket.send({ data, address: { address: server, port: DNS_PORT } }));
    // A server that cannot be reached from here.
    Promise.all(sent).catch(finish);
  });
}

/** Literals without a zone, in the order of the files. */
function nameServers(): string[] {
  // A file that is a mount is kept under its own number.
  const inode = statSync(RESOLV_CONF, { throwIfNoEntry: false })?.ino;
  const kept = [`${RESOLV_CONF}.before-vpnd`, `${RESOLV_CONF}.before-vpnd-${inode}`];
  return [RESOLV_CONF, ...kept, OF_RESOLVED].flatMap((file) => {
    try {
      return parseNameServers(readFileSync(file, 'utf8'));
    } catch {
      return [];
    }
  });
}

/** @example parseNameServers('nameserver 192.0.2.53\n') // ['192.0.2.53'] */
export function parseNameServers(text: string): string[] {
  return [...text.matchAll(/^[ \t]*nameserver[ \t]+(\S+)/gm)].flatMap(([, word = '']) => canonicalAddress(word) ?? []);
}
