/**
 * From the endpoints of a wg-quick file to addresses a socket can send to: host names resolved, links of link-local addresses
 * found, the route looked up. Once at the start, and again when a peer does not answer: names move.
 */
import { lookup } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { canonicalAddress, literalFamily } from '../../model/address.js';
import { BusinessError, KernelError } from '../../model/errors.js';
import { BroadcastError, routeMtu } from '../../tunnel/path-mtu.js';
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

/** Nothing is wrong with the file: there is no network that leads to this endpoint yet, or nobody who knows its name. */
export class NotYet extends FileProblem {
  /** What is not there yet, for a sentence: a name, or the route to something. */
  readonly what: string;
  /** All that the name has. */
  readonly addresses: readonly string[];
  /** Where the peer is as soon as there is a route; undefined: to be searched for. */
  readonly endpoint: Omit<ChosenEndpoint, 'addresses' | 'routeMtu'> | undefined;

  constructor(
    at: { path: string; line: number; reason: string },
    { what, addresses = [], endpoint }: { what: string; addresses?: readonly string[]; endpoint?: NotYet['endpoint'] },
  ) {
    super(EX_CONFIG, at.path, at.line, at.reason);
    this.what = what;
    this.addresses = addresses;
    this.endpoint = endpoint;
  }
}

/** What `chooseEndpoints` finds. */
export interface Endpoints {
  readonly chosen: ReadonlyMap<QuickPeer, ChosenEndpoint>;
  /** Peers whose endpoint is not to be had yet. */
  readonly notYet: ReadonlyMap<QuickPeer, NotYet>;
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
export function machineSources(
  protect?: (fd: number) => Promise<void>,
  lookup: Lookup = systemLookup,
): EndpointSources {
  return {
    lookup,
    routeMtu: (address, scopeId) => routeMtu(address, { scopeId, protect }),
    interfaceIndex,
  };
}

/** getaddrinfo(3), whose order (RFC 6724) knows which families the host has a way for. */
export async function systemLookup(host: string): Promise<string[]> {
  return (await lookup(host, { all: true, verbatim: true })).map(({ address }) => address);
}

/** Asks `next` where no name server is to be had by the usual way: before there is a network, and under lockdown. */
export function lookupOrElse(next: Lookup, first: Lookup = systemLookup): Lookup {
  return async (host) => {
    try {
      return await first(host);
    } catch (error) {
      if (codeOf(error) !== 'EAI_AGAIN') throw error;
      return await next(host);
    }
  };
}

/** The endpoints of all peers that have one. Throws FileProblem 78 for the first that can never be reached. */
export async function chooseEndpoints(file: QuickFile, sources: EndpointSources): Promise<Endpoints> {
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
  const notYet = new Map<QuickPeer, NotYet>();
  for (const peer of file.peers) {
    if (peer.endpoint === undefined) continue;
    try {
      chosen.set(peer, await chooseEndpoint(file, peer.endpoint, known));
    } catch (error) {
      if (!(error instanceof NotYet)) throw error;
      notYet.set(peer, error);
    }
  }
  return { chosen, notYet };
}

/**
 * One endpoint. Of a name's addresses the first that has a route, in the order of `lookup`, as wg(8) takes the first. When the
 * peer did not answer at `current`, the name's other addresses get their turn before it does again.
 *
 * Throws FileProblem 78: the name cannot be resolved, every address of it is our own or behind the tunnel, there is no such
 * interface. As NotYet: there is no route, or nobody who could be asked for the name.
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
  const addresses = literalFamily(host) ? [host] : await resolve(host, sources.lookup, file.path, line);
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
      if (!(error instanceof BroadcastError)) noRoute ??= error;
    }
  }
  if (noRoute === undefined) {
    fault(
      `Endpoint ${named(host, outer[0] ?? '')} is the broadcast address of a network of this machine's; give the peer's own`,
    );
  }
  const why = `there is no route to it (${noRoute?.errnoName}); connect this machine to a network that has one`;
  const reason = `Endpoint ${named(host, outer[0] ?? '')}: ${why}`;
  if (noRoute?.errnoName === 'EAFNOSUPPORT') fault(reason);
  const endpoint = literalFamily(host) ? { address: host, port, ...(scopeId !== undefined && { scopeId }) } : undefined;
  throw new NotYet({ path: file.path, line, reason }, { what: `a route to ${host}`, addresses: outer, endpoint });
}

async function resolve(host: string, lookup: Lookup, path: string, line: number): Promise<string[]> {
  const fault = (reason: string): never => {
    throw new FileProblem(EX_CONFIG, path, line, reason);
  };
  let answers: readonly string[];
  try {
    answers = await lookup(host);
  } catch (error) {
    if (error instanceof BusinessError) throw error;
    const code = codeOf(error) ?? 'no answer';
    if (code === 'EAI_AGAIN') {
      const reason = `Endpoint ${host} cannot be resolved yet (${code}); check that this machine has a network and DNS`;
      throw new NotYet({ path, line, reason }, { what: host });
    }
    return fault(`Endpoint ${host} cannot be resolved (${code}); check the name, and that DNS works`);
  }
  const addresses = answers.map((answer) => canonicalAddress(answer)).filter((address) => address !== undefined);
  const usable = [...new Set(addresses)].filter(isPeerAddress);
  return usable.length > 0
    ? usable
    : fault(`Endpoint ${host} resolves to no address that a peer can have; check the name`);
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
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
