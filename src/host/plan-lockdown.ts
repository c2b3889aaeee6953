/**
 * Lockdown as kernel state: users who, without a VPN, reach nothing but loopback, the local network as the policy allows, what keeps the
 * links alive, and protected sockets; and no resolver. Rules and tables of its own, which stand with and without VPNs and outlive
 * vpnd. Root stands for everyone, as its VPN does. Pure.
 */
import { FAMILIES, type Family } from '../model/vpn-types.js';
import { lanRules, type Surroundings } from './firewall.js';
import { type FirewallOptions, NO_JOIN } from './firewall-base.js';
import { addChain, addRule, BYPASSES, EVERY_UID, hex, uids } from './nft-text.js';
import { BYPASS_MARK, LAN_TABLE, LAST_SYSTEM_UID, LOCKDOWN_TABLE, PRIORITY } from './numbers.js';
import type { Operation } from './operation.js';
import { DHCP, HOST_EXCEPTIONS, LINK_FRAMES } from './plan-firewall.js';
import { lockdownDns, type Released } from './plan-lockdown-dns.js';

const INET = `inet ${LOCKDOWN_TABLE}`;
const NETDEV = `netdev ${LOCKDOWN_TABLE}`;
/** Ports that clients of DHCP (RFC 2131) and DHCPv6 (RFC 8415) send from. */
const DHCP_CLIENT: Record<Family, number> = { 1: 68, 2: 546 };
const DNS_PROTOCOLS = ['tcp', 'udp', 'udplite'] as const;

/** In the order they are added: what closes comes before what leads there. */
export function lockdownRules(users: Iterable<number>, lastUid: number): Operation[] {
  const ranges = [...users].map((uid) => (uid === 0 ? { first: 0, last: lastUid } : { first: uid, last: uid }));
  return FAMILIES.flatMap((family): Operation[] => {
    const rule = { kind: 'rule', family } as const;
    const past = { ...rule, action: 'goto', target: PRIORITY.lockdownEnd } as const;
    const port = DHCP_CLIENT[family];
    // A user namespace may have fewer uids.
    const system = { first: 0, last: Math.min(LAST_SYSTEM_UID, lastUid) };
    return [
      { ...rule, priority: PRIORITY.lockdownEnd, action: 'nop' },
      { ...rule, priority: PRIORITY.lockedLadder + 2, action: 'prohibit' },
      { ...rule, priority: PRIORITY.lockedLadder + 1, action: 'lookup', table: LAN_TABLE },
      { ...rule, priority: PRIORITY.lockedLadder, action: 'nop' },
      // Before local networks: resolvers there would ask on. What has no user any more (a connection that was closed) is told here only.
      ...DNS_PROTOCOLS.map(
        (protocol): Operation => ({
          ...rule,
          priority: PRIORITY.lockedLadder,
          action: 'prohibit',
          iif: 'lo',
          protocol,
          destinationPorts: { first: 53, last: 53 },
        }),
      ),
      { ...past, priority: PRIORITY.pastLockdown },
      { ...past, priority: PRIORITY.lockdown, fwmark: { value: BYPASS_MARK, mask: BYPASS_MARK } },
      {
        ...past,
        priority: PRIORITY.lockdownLeases,
        protocol: 'udp',
        sourcePorts: { first: port, last: port },
        uidRange: system,
      },
      ...ranges.map(
        (uidRange): Operation => ({
          ...rule,
          priority: PRIORITY.lockedUser,
          action: 'goto',
          target: PRIORITY.lockedLadder,
          iif: 'lo',
          uidRange,
        }),
      ),
    ];
  });
}

const TABLES = ['inet', 'netdev'].map((family) => `${family} ${LOCKDOWN_TABLE}`);

/** Before lockdownTable(): tables that are not made as nobody else's (nftables-owned.ts), whether there are some or not. */
export function lockdownTables(): string[] {
  const add = TABLES.map((table) => `add table ${table}`);
  return [...add, ...TABLES.map((table) => `delete table ${table}`), ...add];
}

/** Before lockdownTable(): what stands in tables that stay goes. `chains`: as Nftables.chainsOf() lists them. */
export function lockdownEmptied(chains: readonly string[]): string[] {
  return [...TABLES.map((table) => `flush table ${table}`), ...chains.map((chain) => `delete chain ${chain}`)];
}

/**
 * What is in the tables, in one transaction with what makes them empty. `owners`: users whose VPN is up, which has a lock of its own;
 * with root's VPN up, root is one.
 */
export function lockdownTable(
  users: ReadonlySet<number>,
  { owners: released, root }: Released,
  { lan, frames, tellsSubflows = true }: Pick<Surroundings, 'lan' | 'frames'> & Partial<FirewallOptions>,
): string[] {
  const closed = [...users].filter((uid) => uid !== 0);
  const everyone = users.has(0) && !released.has(0);
  const judge = [
    ...(released.size > 0 ? [`meta skuid { ${uids(released)} } accept`] : []),
    ...(closed.length > 0 ? [`meta skuid { ${uids(closed)} } goto closed`] : []),
  ];
  return [
    addChain(INET, 'explained'),
    addRule(INET, 'explained', `meta mark set meta mark | ${hex(BYPASS_MARK)} accept`),
    addChain(INET, 'closed'),
    ...lanRules(lan).map((text) => addRule(INET, 'closed', text)),
    ...HOST_EXCEPTIONS.map((text) => addRule(INET, 'closed', text)),
    addRule(INET, 'closed', 'drop'),
    // While somebody else's VPN is up its table marks answers to what came in. Protected sockets have the mark themselves.
    addChain(INET, 'answers', 'type filter hook output priority -149'),
    ...(released.size > 0 ? [addRule(INET, 'answers', `meta skuid { ${uids(released)} } return`)] : []),
    ...(everyone || closed.length > 0
      ? [
          addRule(
            INET,
            'answers',
            `oifname != "lo" meta skuid { ${everyone ? EVERY_UID : uids(closed)} } socket mark & ${hex(BYPASS_MARK)} == ${hex(0)} meta mark set meta mark & ${hex(~BYPASS_MARK)}`,
          ),
        ]
      : []),
    // Behind the lock of the VPNs, which has let out what is theirs.
    addChain(INET, 'lockdown', 'type filter hook postrouting priority 111'),
    addRule(INET, 'lockdown', 'oifname { "lo", "vpn-tun*" } accept'),
    addRule(INET, 'lockdown', BYPASSES),
    ...(tellsSubflows ? [] : [addRule(INET, 'lockdown', NO_JOIN)]),
    ...judge.map((text) => addRule(INET, 'lockdown', text)),
    ...(everyone ? [addRule(INET, 'lockdown', 'goto closed')] : []),
    ...lockdownDns(INET, users, { owners: released, ...(root && { root }) }),
    addChain(NETDEV, 'closed'),
    ...DHCP.map((text) => addRule(NETDEV, 'closed', `${text} accept`)),
    addRule(NETDEV, 'closed', LINK_FRAMES),
    addRule(NETDEV, 'closed', 'drop'),
    addChain(NETDEV, 'frames'),
    addRule(NETDEV, 'frames', BYPASSES),
    ...judge.map((text) => addRule(NETDEV, 'frames', text)),
    ...(everyone ? [addRule(NETDEV, 'frames', `meta skuid ${EVERY_UID} goto closed`)] : []),
    ...(frames.length > 0
      ? [
          addChain(
            NETDEV,
            'egress_hook',
            `type filter hook egress devices = { ${frames.map((name) => `"${name}"`).join(', ')} } priority 1`,
          ),
          addRule(NETDEV, 'egress_hook', 'goto frames'),
        ]
      : []),
  ];
}
