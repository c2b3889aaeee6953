/**
 * Finds the addresses of a peer's name past the VPN that leads to it. While its tunnel does not work, a question asked the usual
 * way goes into it, as all of this user's traffic does. So the questions of this resolver leave by a protected socket, and go to
 * the machine's own name servers: those of resolv.conf(5) now, without the VPN's, then those that were there before the VPN.
 *
 * Only DNS over UDP: no hosts file, no search domains, no other name services. What these knew when the tunnel began is kept.
 */
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { canonicalAddress } from '../model/address.js';
import type { VpnConnection } from '../vpn/connection.js';
import { UDPSocket } from '../vpn/socket-udp.js';
import { decodeAnswer, encodeQuestion, TYPE_A, TYPE_AAAA } from './dns-message.js';

/** The second is what systemd-resolved asks when the first says to ask systemd-resolved. */
const FILES = ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf'];
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
    this.#before = nameServers(FILES);
  }

  /** Literals, IPv4 first; empty when nobody knew. Rejects when no socket can be had or protected. */
  async resolve(host: string): Promise<string[]> {
    const now = nameServers(FILES).filter((server) => !this.#ofVpn.has(server));
    for (const server of [...new Set([...now, ...this.#before])].slice(0, MAX_SERVERS)) {
      const addresses = await this.#ask(server, host);
      if (addresses.length > 0) return addresses;
    }
    return [];
  }

  /** A socket for every attempt: its port is half of what keeps strangers from answering. */
  async #ask(server: string, host: string): Promise<string[]> {
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

function exchange(socket: UDPSocket, server: string, questions: readonly Buffer[]): Promise<string[]> {
  const answers: (string[] | undefined)[] = questions.map(() => undefined);
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(late);
      resolve(answers.flatMap((addresses) => addresses ?? []));
    };
    const late = setTimeout(finish, PATIENCE_MS);
    socket.on('message', ({ message, remoteInfo }) => {
      if (canonicalAddress(remoteInfo.address) !== server || remoteInfo.port !== DNS_PORT) return;
      for (const [index, question] of questions.entries()) {
        answers[index] ??= decodeAnswer(new Uint8Array(message), question);
      }
      if (answers.every((each) => each !== undefined)) finish();
    });
    const sent = questions.map((data) => socket.send({ data, address: { address: server, port: DNS_PORT } }));
    // A server that cannot be reached from here.
    Promise.all(sent).catch(finish);
  });
}

/** Literals without a zone, in the order of the files. */
function nameServers(files: readonly string[]): string[] {
  return files.flatMap((file) => {
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
