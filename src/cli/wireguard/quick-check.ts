/**
 * What is wrong with a wg-quick file as a whole, though every line is right by itself.
 *
 * **An endpoint inside AllowedIPs is fine.** With 0.0.0.0/0 every endpoint is, and even with a single prefix the tunnel's own
 * datagrams never go into the tunnel: their socket is protected, so the host routes them as if there were no VPN. What cannot
 * work is an endpoint that is one of our own addresses, which the host delivers to itself before it looks at any mark, or that
 * lies in the network of one of our addresses, which by the file's own word is behind the tunnel: that is the peer's inner
 * address, written where the outer one belongs.
 */
import { familyOf, type Prefix, prefixContains } from '../../model/address.js';
import { MAX_ADDRESSES, MAX_DNS_ADDRESSES, MAX_SEARCH_DOMAINS, MIN_IPV6_MTU } from '../../model/limits.js';
import { coverage } from '../../model/on-link.js';
import { IPV6 } from '../../model/vpn-types.js';
import { generatePrivateKey, importPrivateKey, publicKeyOf, sharedSecret } from '../../tunnel/wireguard/x25519.js';
import { EX_CONFIG, EX_DATAERR, type ExitCode, FileProblem } from './problem.js';
import { type At, prefixText, type QuickFile } from './quick-file.js';

/**
 * Throws FileProblem. 65: an address or a peer twice, one prefix with two peers (WireGuard would take it from the first; nested
 * prefixes are fine, the longest match decides), a peer with our own key or one that is nobody's, an MTU too small for IPv6. 78:
 * more than vpnd takes, an endpoint that only the tunnel leads to.
 */
export function checkQuickFile(file: QuickFile): void {
  checkCounts(file);
  checkAddresses(file);
  checkPeerKeys(file);
  checkAllowedIps(file);
  checkEndpoints(file);
}

function checkCounts({ path, interface: own }: QuickFile): void {
  const limits: [key: string, entries: readonly At<unknown>[], maximum: number][] = [
    ['Address', own.addresses, MAX_ADDRESSES],
    ['DNS', own.dnsServers, MAX_DNS_ADDRESSES],
    ['DNS', own.searchDomains, MAX_SEARCH_DOMAINS],
  ];
  for (const [key, entries, maximum] of limits) {
    const first = entries[maximum];
    if (first) fault(EX_CONFIG, path, first.line, `${key}: vpnd takes at most ${maximum} of these; remove some`);
  }
}

function checkAddresses({ path, interface: { addresses, mtu } }: QuickFile): void {
  const seen = new Map<string, number>();
  for (const { value, line } of addresses) {
    const first = seen.get(value.address);
    if (first !== undefined) fault(EX_DATAERR, path, line, `Address ${value.address} is in line ${first} already`);
    seen.set(value.address, line);
  }
  const hasIpv6 = addresses.some(({ value }) => familyOf(value.address) === IPV6);
  if (mtu && hasIpv6 && mtu.value < MIN_IPV6_MTU) {
    fault(
      EX_DATAERR,
      path,
      mtu.line,
      `MTU is ${mtu.value}, but IPv6 needs ${MIN_IPV6_MTU}; raise it or remove the line`,
    );
  }
}

function checkPeerKeys({ path, interface: { privateKey }, peers }: QuickFile): void {
  const text = (key: Uint8Array) => Buffer.from(key).toString('base64');
  const own = privateKey && text(publicKeyOf(privateKey.value));
  // Whether a peer's key is one does not depend on ours.
  const imported = importPrivateKey(privateKey?.value ?? generatePrivateKey());
  const seen = new Map<string, number>();
  for (const { value, line } of peers.map(({ publicKey }) => publicKey)) {
    const key = text(value);
    if (key === own) fault(EX_DATAERR, path, line, "PublicKey is this side's own; a peer has the other side's");
    const first = seen.get(key);
    if (first !== undefined) fault(EX_DATAERR, path, line, `PublicKey is the peer's of line ${first}; make them one`);
    seen.set(key, line);
    const secret = sharedSecret(imported, value);
    if (!secret) fault(EX_DATAERR, path, line, 'PublicKey is no usable X25519 key; ask the other side for its own');
    secret?.fill(0);
  }
}

function checkAllowedIps({ path, peers }: QuickFile): void {
  // A peer has no prefix twice, so one that was seen is another's.
  const seen = new Map<string, number>();
  for (const { allowedIps } of peers) {
    for (const { value, line } of allowedIps) {
      const key = prefixText(value);
      const first = seen.get(key);
      if (first !== undefined) {
        const reason = `AllowedIPs ${key} is another peer's in line ${first}; leave it to one of them`;
        fault(EX_DATAERR, path, line, reason);
      }
      seen.set(key, line);
    }
  }
}

function checkEndpoints(file: QuickFile): void {
  const inner = innerAddress(file);
  for (const { endpoint } of file.peers) {
    const reason = endpoint && inner(endpoint.value.host);
    if (reason) fault(EX_CONFIG, file.path, endpoint.line, `Endpoint ${reason}`);
  }
}

/** Why an address cannot be a peer's endpoint, undefined when it can. Host names pass: what they resolve to is asked again. */
export function innerAddress({ interface: { addresses } }: QuickFile): (host: string) => string | undefined {
  const prefixes: Prefix[] = addresses.map(({ value }) => value);
  const isInner = coverage(prefixes);
  return (host) => {
    if (!/^[\d.]+$|:/.test(host) || !isInner(host)) return undefined;
    const own = prefixes.find(({ address }) => address === host) ?? prefixes.find((each) => prefixContains(each, host));
    if (own === undefined) return undefined;
    return own.address === host
      ? `${host} is our own Address; give the address at which the peer is reached from outside`
      : `${host} is behind the tunnel, in the network of our Address ${prefixText(own)}; give the peer's outer address, or our Address a longer prefix`;
  };
}

function fault(exitCode: ExitCode, path: string, line: number, reason: string): never {
  throw new FileProblem(exitCode, path, line, reason);
}
