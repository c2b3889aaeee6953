/**
 * Under lockdown nobody without a VPN asks a resolver: not one on a local network, which would ask on, nor one of this host, which would
 * do so under its own user. Refused at once, so that no program waits for an answer. Whom a VPN covers asks as the VPN says. Pure.
 */
import type { Coverage } from './coverage.js';
import { addChain, addRule, EVERY_UID, hex, SELECTION, uids } from './nft-text.js';
import { BYPASS_MARK, SELECTION_FIELD } from './numbers.js';

/** Of the VPNs that are up: whose, and which lists root's has. */
export interface Released {
  owners: ReadonlySet<number>;
  root?: Pick<Coverage, 'trusted' | 'blocked' | 'selections'>;
}

const PROTOCOLS = ['tcp', 'udp', 'udplite', 'sctp', 'dccp'];

/** Behind the translation of addresses: what somebody else's table has led to port 53, or from there, counts too. */
export function lockdownDns(table: string, users: ReadonlySet<number>, released: Released): string[] {
  return [
    addChain(table, 'no_dns'),
    addRule(table, 'no_dns', 'meta l4proto tcp reject with tcp reset'),
    addRule(table, 'no_dns', 'reject with icmpx port-unreachable'),
    addChain(table, 'asks'),
    // By the socket: a packet's mark may also say that it answers somebody.
    addRule(table, 'asks', `socket mark & ${hex(BYPASS_MARK)} == ${hex(BYPASS_MARK)} return`),
    // Led into a VPN, wherever it was meant for.
    addRule(table, 'asks', `ct mark & ${hex(SELECTION_FIELD)} != ${hex(0)} return`),
    ...judges(users, released).map((text) => addRule(table, 'asks', text)),
    addChain(table, 'asked', 'type filter hook output priority filter'),
    addRule(table, 'asked', 'oifname "vpn-tun*" return'),
    addRule(table, 'asked', `meta l4proto { ${PROTOCOLS.join(', ')} } th dport 53 goto asks`),
    // One each: of several protocols nft lists what it cannot read again.
    ...PROTOCOLS.map((protocol) =>
      addRule(table, 'asked', `meta l4proto ${protocol} ct direction original ct original proto-dst 53 goto asks`),
    ),
  ];
}

/** Who is locked and by no VPN covered. */
function judges(users: ReadonlySet<number>, { owners, root }: Released): string[] {
  const own = [...owners].filter((uid) => uid !== 0);
  const named = [...users].filter((uid) => uid !== 0);
  const past = own.length === 0 ? [] : [`meta skuid { ${uids(own)} } return`];
  if (owners.has(0) && root?.trusted === undefined) return [...past, ...keptOut(named, root)];
  return [
    ...past,
    ...(root === undefined ? [] : listed(root).map((match) => `${match} return`)),
    ...(users.has(0) ? [`meta skuid ${EVERY_UID} goto no_dns`] : []),
    ...(named.length > 0 && !users.has(0) ? [`meta skuid { ${uids(named)} } goto no_dns`] : []),
  ];
}

/** Whom root's VPN takes in by its list. */
function listed({ trusted, selections }: NonNullable<Released['root']>): string[] {
  const listed = [...(trusted?.uids ?? [])];
  return [
    ...(listed.length > 0 ? [`meta skuid { ${uids(listed)} }`] : []),
    ...(selections.covered === undefined ? [] : [`${SELECTION} == ${hex(selections.covered)}`]),
  ];
}

/** Root's VPN is everyone's, so it has lifted root's lockdown; not that of a user whom its list keeps out. */
function keptOut(named: readonly number[], root: Released['root']): string[] {
  const passed = named.filter((each) => root?.blocked?.uids.has(each));
  const mark = root?.selections.blocked;
  return [
    ...(passed.length > 0 ? [`meta skuid { ${uids(passed)} } goto no_dns`] : []),
    ...(mark !== undefined && named.length > 0
      ? [`${SELECTION} == ${hex(mark)} meta skuid { ${uids(named)} } goto no_dns`]
      : []),
  ];
}
