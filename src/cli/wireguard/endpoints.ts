/**
 * From the endpoints of a wg-quick file to addresses a socket can send to: host names resolved, links of link-local addresses
 * found, the route looked up. Once at the start, and again when a peer does not answer: names move.
 */
import { lookup } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { canonicalAddress, literalFamily } from '../../model/address.js';
import { KernelError } from '../../model/errors.js';
import { routeMtu } from '../../tunnel/path-mtu.js';
import { EX_CONFIG, FileProblem } from './problem.js';
import { innerAddress } from './quick-check.js';
import type { At, QuickEndpoint, QuickFile, QuickPeer } from './quick-file.js';
import { isPeerAddress } from './quick-values.js';

export interface ChosenEndpoint {
  /** A literal. */
  readonly address: string;
  readonly port: number;
  /** All that the name had, this one among them: for when the peer does not answer. */
  readonly addresses: readonly string[];
  /** Of a link-local address. */
  readonly scopeId?: number;
  /** Bytes; MTU of the route there. */
  readonly routeMtu: number;
}

/** Every address of a host name, best first; rejects when there is none. */
export type Lookup = (host: string) => Promise<readonly string[]>;

/** What is asked of the machine. */
export interface EndpointSources {
  readonly lookup: Lookup;
  /** Rejects with KernelError when there is no route; see `routeMtu` of the tunnel. */
  routeMtu(address: string, scopeId: number | undefined): Promise<number>;
  interfaceIndex(name: string): number | undefined;
}

/** The machine's own. `protect` is the VPN connection's, without which the route found may be that of a VPN. */
export function machineSources(protect?: (fd: number) => Promise<void>): EndpointSources {
  return {
    lookup: systemLookup,
    routeMtu: (address, scopeId) => routeMtu(address, { scopeId, protect }),
    interfaceIndex,
  };
}

/** getaddrinfo(3), whose order (RFC 6724) knows which families the host has a way for. */
export async function systemLookup(host: string): Promise<string[]> {
  return (await lookup(host, { all: true, verbatim: true })).map(({ address }) => address);
}

/** The endpoints of all peers that have one. Throws FileProblem 78 for the first that cannot be reached. */
export async function chooseEndpoints(
  file: QuickFile,
  sources: EndpointSources,
): Promise<Map<QuickPeer, ChosenEndpoint>> {
  // Names all at once, since each may wait for a timeout; routes one after the other, since each takes a socket.
  const names = new Set(file.peers.flatMap(({ endpoint }) => (endpoint ? [endpoint.value.host] : [])));
  const answers = new Map<string, Promise<readonly string[]>>();
  for (const name of names) {
    const answer = Promise.resolve(literalFamily(name) ? [name] : sources.lookup(name));
    answer.catch(() => undefined);
    answers.set(name, answer);
  }
  const known: EndpointSources = { ...sources, lookup: (host) => answers.get(host) ?? sources.lookup(host) };
  const chosen = new Map<QuickPeer, ChosenEndpoint>();
  for (const peer of file.peers) {
    const endpoint = peer.endpoint && (await chooseEndpoint(file, peer.endpoint, known));
    if (endpoint) chosen.set(peer, endpoint);
  }
  return chosen;
}

/**
 * One endpoint. Of a name's addresses the first that has a route, in the order of `lookup`, as wg(8) takes the first. When the
 * peer did not answer at `current`, the name's other addresses get their turn before it does again.
 *
 * Throws FileProblem 78: the name cannot be resolved, every address of it is our own or behind the tunnel, there is no route, no
 * such interface.
 */
export async function chooseEndpoint(
  file: QuickFile,
  { value: { host, port, zone }, line }: At<QuickEndpoint>,
  sources: EndpointSources,
  current?: string,
): Promise<ChosenEndpoint> {
  const fault = (reason: string): never => {
    throw new FileProblem(EX_CONFIG, file.path, line, reason);
  };
  const scopeId = zone === undefined ? undefined : sources.interfaceIndex(zone);
  if (zone !== undefined && scopeId === undefined) fault(`Endpoint: there is no interface ${zone}`);
  const addresses = literalFamily(host) ? [host] : await resolve(host, sources.lookup, fault);
  const inner = innerAddress(file);
  const outer = addresses.filter((address) => !inner(address));
  const [first = ''] = addresses;
  if (outer.length === 0) fault(`Endpoint ${named(host, first)}${inner(first)?.slice(first.length)}`);
  let noRoute: KernelError | undefined;
  for (const address of inTurn(outer, current)) {
    try {
      const mtu = await sources.routeMtu(address, scopeId);
      return { address, port, addresses: outer, ...(scopeId === undefined ? {} : { scopeId }), routeMtu: mtu };
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      noRoute ??= error;
    }
  }
  const why = `there is no route to it (${noRoute?.errnoName}); connect this machine to a network that has one`;
  return fault(`Endpoint ${named(host, outer[0] ?? '')}: ${why}`);
}

async function resolve(host: string, lookup: Lookup, fault: (reason: string) => never): Promise<string[]> {
  let answers: readonly string[];
  try {
    answers = await lookup(host);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'no answer';
    return fault(`Endpoint ${host} cannot be resolved (${code}); check the name, and that DNS works`);
  }
  const addresses = answers.map((answer) => canonicalAddress(answer)).filter((address) => address !== undefined);
  const usable = [...new Set(addresses)].filter(isPeerAddress);
  return usable.length > 0
    ? usable
    : fault(`Endpoint ${host} resolves to no address that a peer can have; check the name`);
}

function named(host: string, address: string): string {
  return host === address ? host : `${host} (${address})`;
}

/** As they came; behind `current`, in an order that every later call has too, so that each of many gets its turn. */
function inTurn(addresses: readonly string[], current: string | undefined): string[] {
  if (current === undefined || !addresses.includes(current)) return [...addresses];
  const sorted = [...addresses].sort();
  const next = sorted.indexOf(current) + 1;
  return [...sorted.slice(next), ...sorted.slice(0, next)];
}

/** A name or, as getaddrinfo(3) takes it too, a number. */
function interfaceIndex(name: string): number | undefined {
  if (/^[1-9]\d{0,8}$/.test(name)) return Number(name);
  try {
    return Number(readFileSync(`/sys/class/net/${name}/ifindex`, 'utf8'));
  } catch {
    return undefined;
  }
}
