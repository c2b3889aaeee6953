/**
 * The part of the firewall that all VPNs share, as nft commands (nft(8)): the hooks, and maps through which a packet finds the
 * chains of the VPN it belongs to in one step, so that the number of VPNs costs nobody anything. It stands from the first VPN
 * to the last. Routing rules are the first lock; this is the second, which also holds sockets that are bound to a device.
 *
 * Why where: the lock is in postrouting, because later output chains still see the device from before a re-route. What comes in is
 * judged before conntrack puts fragments together (-400): of a whole packet only the last one's link is known. There too, and so
 * before firewalld's, come the marks for the reverse path filters.
 */
import { FAMILIES, type Family, IPV6 } from '../model/vpn-types.js';
import {
  ARP,
  addChain,
  addRule,
  BYPASSES,
  DNS,
  EVERY_UID,
  hex,
  INET,
  NETDEV,
  SELECTION,
  setField,
} from './nft-text.js';
import { BYPASS_MARK, NFT_TABLE, SELECTION_FIELD } from './numbers.js';

const IS_ANSWER = `ct direction reply ct mark & ${hex(BYPASS_MARK)} == ${hex(BYPASS_MARK)}`;
const CAME_IN = `${IS_ANSWER} goto bypass`;
/** Protocols of which any first packet may begin something, and whose sockets could be ended at setUp. */
const WITHOUT_BEGINNING = '{ udp, udplite, icmp, icmpv6, sctp }';
const WITH_PORTS = '{ tcp, udp, udplite, sctp }';
/** MPTCP: a further path of a connection (RFC 8684, 3.2). */
const JOIN = 'tcp option mptcp subtype 1';
/** Of no path that begins here it can be told whose it is. */
export const NO_JOIN = `tcp flags & (syn | ack) == syn ${JOIN} drop`;

/** From here to there, as a packet that leaves has it and as one that comes in does. */
const OUTGOING: Record<Family, string> = {
  1: 'ip saddr . meta l4proto . th sport . ip daddr . th dport',
  2: 'ip6 saddr . meta l4proto . th sport . ip6 daddr . th dport',
};
const INCOMING: Record<Family, string> = {
  1: 'ip daddr . meta l4proto . th dport . ip saddr . th sport',
  2: 'ip6 daddr . meta l4proto . th dport . ip6 saddr . th sport',
};
const FLOW: Record<Family, string> = {
  1: 'ipv4_addr . inet_proto . inet_service . ipv4_addr . inet_service',
  2: 'ipv6_addr . inet_proto . inet_service . ipv6_addr . inet_service',
};
const digit = (family: Family): number => (family === IPV6 ? 6 : 4);

/** Chains and maps that VPNs fill. `ROOT_CHAINS` are empty until root has a VPN. */
export const ROOT_CHAINS = [
  'root_arrive',
  'root_send',
  'root_dns',
  'root_dns_zone',
  'root_outside',
  'forward_dns',
  'forward_refused',
  'forward_inward',
] as const;

export interface FirewallOptions {
  /**
   * Whether what begins in a tunnel may arrive: someone else sees to it that only covered sockets receive it. The firewall
   * cannot: of a listener it does not know whose it is.
   */
  takesNew: boolean;
  /** Whether someone else knows whose the subflows are that the kernel opens for MPTCP. The firewall sees no user of theirs. */
  tellsSubflows: boolean;
}

const FULL_OPTIONS: FirewallOptions = { takesNew: true, tellsSubflows: true };

export function firewallBase({ takesNew, tellsSubflows }: FirewallOptions = FULL_OPTIONS): string[] {
  return [...sets(), ...arriving(takesNew), ...dns(), ...sending(), ...leaving(tellsSubflows), ...otherTables()];
}

const TABLES = ['inet', 'arp', 'netdev'];

/** Before everything else, where they are not made as nobody else's (nftables-owned.ts). */
export function firewallTables(): string[] {
  return TABLES.map((family) => `add table ${family} ${NFT_TABLE}`);
}

/** Tables go with everything in them. */
export function firewallRemoval(): string[] {
  return TABLES.map((family) => `delete table ${family} ${NFT_TABLE}`);
}

function sets(): string[] {
  const set = (name: string, type: string) => `add set ${INET} ${name} { type ${type}; }`;
  const map = (name: string, type: string) => `add map ${INET} ${name} { type ${type} : verdict; }`;
  return [
    set('vnic4', 'ipv4_addr'),
    set('vnic6', 'ipv6_addr'),
    // Of users' VPNs, and whose they are.
    set('owned4', 'ipv4_addr'),
    set('owned6', 'ipv6_addr'),
    set('owner4', 'ipv4_addr . uid'),
    set('owner6', 'ipv6_addr . uid'),
    // Links behind which the internet is, and those whose forwarded traffic the policy exempts.
    set('outer', 'ifname'),
    // TCP connections that came in before this table did: conntrack does not know which way they began.
    set('came_in4', 'ipv4_addr . inet_service . ipv4_addr . inet_service'),
    set('came_in6', 'ipv6_addr . inet_service . ipv6_addr . inet_service'),
    ...FAMILIES.flatMap((family) => [
      `add set ${INET} tried${digit(family)} { type ${FLOW[family]}; flags dynamic, timeout; size 65536; timeout 3m; }`,
      // Of sockets that setUp ended. A set of its own, which what programs try cannot fill.
      `add set ${INET} ended${digit(family)} { type ${FLOW[family]}; flags timeout; timeout 3m; }`,
    ]),
    set('own_vpn', 'uid'),
    map('arrive', 'ifname'),
    map('enter', 'ifname'),
    map('outside_user', 'uid'),
    map('outside_selection', 'mark'),
    map('sent_user', 'uid'),
    map('sent_link', 'ifname'),
    map('dns_user', 'uid'),
    map('dns_zone_user', 'uid'),
    map('dns_selection', 'mark'),
    map('dns_connection', 'mark'),
    `add map ${INET} answer_mark { type ifname : mark; }`,
    map('source', 'ifname'),
    map('source_selection', 'mark'),
    map('answer_routed', 'mark'),
    map('answer_received', 'mark'),
    ...ROOT_CHAINS.map((chain) => addChain(INET, chain)),
    addChain(INET, 'bypass'),
    addRule(INET, 'bypass', setField('meta', BYPASS_MARK)),
    // What the lock lets out says so to the hook behind it.
    addChain(INET, 'explained'),
    addRule(INET, 'explained', `meta mark set meta mark | ${hex(BYPASS_MARK)} accept`),
    // Filled from the policy and the links.
    addChain(INET, 'lan'),
    set('local4', 'ipv4_addr; flags interval'),
    set('local6', 'ipv6_addr; flags interval'),
    // In the name of somebody whom answers reach by another way than the vNIC. Nobody answers an error, and routers inside a VPN have
    // what addresses they like.
    addChain(INET, 'foreign'),
    addRule(INET, 'foreign', 'icmp type { destination-unreachable, time-exceeded, parameter-problem } return'),
    addRule(
      INET,
      'foreign',
      'icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } return',
    ),
    addRule(INET, 'foreign', 'drop'),
    // Filled when there are such connections.
    addChain(INET, 'came_in'),
    addChain(INET, 'forward_blocked'),
    // Who sent first tells servers from clients. So what did not get out is remembered, for longer than clients wait before they try
    // again: nothing with its addresses and ports came in from outside.
    addChain(INET, 'remember'),
    ...FAMILIES.map((family) =>
      addRule(INET, 'remember', `meta l4proto ${WITH_PORTS} update @tried${digit(family)} { ${OUTGOING[family]} }`),
    ),
    addChain(INET, 'stopped'),
    addRule(INET, 'stopped', 'jump remember'),
    addRule(INET, 'stopped', 'drop'),
    addChain(INET, 'refuse'),
    addRule(INET, 'refuse', 'jump remember'),
    addRule(INET, 'refuse', 'meta l4proto tcp reject with tcp reset'),
    addRule(INET, 'refuse', 'reject with icmpx port-unreachable'),
  ];
}

function arriving(takesNew: boolean): string[] {
  return [
    addChain(INET, 'arrive'),
    addRule(INET, 'arrive', 'iifname vmap @arrive'),
    addChain(INET, 'arrived', 'type filter hook prerouting priority -450'),
    addRule(INET, 'arrived', 'iifname "lo" return'),
    addRule(INET, 'arrived', 'iifname "vpn-tun*" goto arrive'),
    // CVE-2019-14899: nobody outside may try out which address or connection the tunnel has.
    addRule(INET, 'arrived', 'ip daddr @vnic4 drop'),
    addRule(INET, 'arrived', 'ip6 daddr @vnic6 drop'),
    addRule(INET, 'arrived', 'goto root_arrive'),
    addChain(INET, 'tracked_before'),
    // A published port: what the container answers goes back where the request came from.
    addRule(INET, 'tracked_before', CAME_IN),
    // To a query that a VPN's name server outside that VPN was asked: it came by main's way, whosever address it is for.
    addRule(INET, 'tracked_before', `ct direction reply ct mark & ${hex(SELECTION_FIELD)} != ${hex(0)} goto bypass`),
    addChain(INET, 'tracked_inside'),
    ...(takesNew ? [] : [addRule(INET, 'tracked_inside', 'ct state new drop')]),
    // An answer to a redirected query is for whoever asked, perhaps at an address of another link: reverse path filters, the kernel's
    // and firewalld's, shall judge it by the VPN's routes.
    addRule(INET, 'tracked_inside', 'ct direction reply ct status dnat meta mark set iifname map @answer_mark'),
    // The same as below: a VPN's server has nothing to say about what did not go into that VPN.
    addRule(INET, 'tracked_inside', 'ct state invalid meta l4proto { icmp, icmpv6 } drop'),
    addChain(INET, 'tracked', 'type filter hook prerouting priority mangle'),
    addRule(INET, 'tracked', 'iifname "lo" return'),
    addRule(INET, 'tracked', 'iifname "vpn-tun*" goto tracked_inside'),
    addRule(INET, 'tracked', 'ct state established goto tracked_before'),
    // An ICMP error names the packet it is about, and sockets believe one from anywhere: also about what went into a tunnel. Conntrack
    // knows that it does not fit (nf_conntrack_inet_error(), Linux 5.2).
    addRule(INET, 'tracked', 'ct state invalid meta l4proto { icmp, icmpv6 } fib daddr type local drop'),
    // What the lock has stopped (chain `remember`) is no server because somebody answers it, or makes as if.
    ...FAMILIES.flatMap((family) =>
      ['tried', 'ended'].map((set) =>
        addRule(INET, 'tracked', `ct state new ${INCOMING[family]} @${set}${digit(family)} return`),
      ),
    ),
    // It belongs to a connection that may have begun here, in a tunnel.
    addRule(INET, 'tracked', `ct state new ${JOIN} return`),
    // TCP only by its first segment: a connection picked up in the middle may be one that began here.
    addRule(
      INET,
      'tracked',
      `ct state new meta l4proto ${WITHOUT_BEGINNING} ct mark set ct mark | ${hex(BYPASS_MARK)}`,
    ),
    addRule(
      INET,
      'tracked',
      `ct state new tcp flags & (fin | syn | rst | ack) == syn ct mark set ct mark | ${hex(BYPASS_MARK)}`,
    ),
    addRule(INET, 'tracked', 'goto tracked_before'),
    addChain(INET, 'forwarded', 'type filter hook forward priority filter'),
    addRule(INET, 'forwarded', BYPASSES),
    // What a container asked for through the tunnel, on its way to the link that the container is on.
    addRule(INET, 'forwarded', `iifname "vpn-tun*" ${CAME_IN}`),
    // A user's tunnel leads to that user's programs, not to ports that containers have published.
    addRule(INET, 'forwarded', 'iifname "vpn-tun*" jump forward_inward'),
    addRule(INET, 'forwarded', 'iifname "vpn-tun*" drop'),
    addRule(INET, 'forwarded', 'jump forward_refused'),
    addRule(INET, 'forwarded', 'goto forward_blocked'),
  ];
}

/** Every packet of the host comes through here, so what concerns few stands behind what most leave by. */
function sending(): string[] {
  return [
    addChain(INET, 'sent_outside'),
    addRule(INET, 'sent_outside', 'meta skuid vmap @sent_user'),
    addRule(INET, 'sent_outside', 'jump root_send'),
    addRule(INET, 'sent_outside', `${DNS} goto dns_mark`),
    // On its way in by the rules: only where a name server is may have to change.
    addChain(INET, 'sent_inside'),
    addRule(INET, 'sent_inside', 'oifname vmap @sent_link'),
    addRule(INET, 'sent_inside', `${DNS} goto dns_mark`),
    // A late answer from a resolver looks like a request: who asks it again is no server that answers.
    addChain(INET, 'answer'),
    addRule(INET, 'answer', 'meta l4proto { udp, udplite, sctp, dccp } th sport != 53 th dport 53 jump dns_mark'),
    addRule(INET, 'answer', 'goto bypass'),
    addChain(INET, 'sent', 'type route hook output priority mangle'),
    addRule(INET, 'sent', `${IS_ANSWER} goto answer`),
    // The rules lead these into the tunnel like everything that is covered.
    addRule(INET, 'sent', 'jump came_in'),
    addRule(INET, 'sent', BYPASSES),
    addRule(INET, 'sent', 'oifname "vpn-tun*" goto sent_inside'),
    addRule(INET, 'sent', 'goto sent_outside'),
  ];
}

/**
 * DNS gets the VPN's mark, because the IPv4 re-route behind a destination NAT forgets the uid; by the connection's mark it is
 * translated: a socket may have kept its own from a VPN that is gone.
 */
function dns(): string[] {
  return [
    // Before conntrack looks for the connection that a query belongs to.
    addChain(INET, 'dns_zone'),
    addRule(INET, 'dns_zone', BYPASSES),
    addRule(INET, 'dns_zone', 'meta skuid vmap @dns_zone_user'),
    addRule(INET, 'dns_zone', 'goto root_dns_zone'),
    addChain(INET, 'untracked', 'type filter hook output priority raw'),
    // From port 53 it may be the answer of a server here, whose connection is in no zone.
    addRule(INET, 'untracked', 'udp sport != 53 udp dport 53 goto dns_zone'),
    addChain(INET, 'dns_mark'),
    addRule(INET, 'dns_mark', 'meta skuid vmap @dns_user'),
    addRule(INET, 'dns_mark', `meta skuid ${EVERY_UID} goto root_dns`),
    // What a closed socket still has to say (data again, FIN, a TIME_WAIT's ACK) has no uid, but it has its connection.
    addRule(INET, 'dns_mark', `ct mark & ${hex(SELECTION_FIELD)} vmap @dns_connection`),
    // By number: nft 1.0.6 refuses the word dstnat in an output chain.
    addChain(INET, 'dns_redirect', 'type nat hook output priority -100'),
    addRule(INET, 'dns_redirect', `ct mark & ${hex(SELECTION_FIELD)} vmap @dns_selection`),
    addChain(INET, 'dns_forwarded', 'type nat hook prerouting priority -100'),
    addRule(INET, 'dns_forwarded', 'goto forward_dns'),
    addChain(INET, 'into_tunnel', 'type nat hook postrouting priority srcnat'),
    addRule(INET, 'into_tunnel', 'oifname vmap @source'),
    addRule(INET, 'into_tunnel', `${SELECTION} vmap @source_selection`),
  ];
}

function leaving(tellsSubflows: boolean): string[] {
  const joins = (chain: string): string[] => (tellsSubflows ? [] : [addRule(INET, chain, NO_JOIN)]);
  return [
    addChain(INET, 'enter'),
    ...joins('enter'),
    addRule(INET, 'enter', 'oifname vmap @enter'),
    addChain(INET, 'lock', 'type filter hook postrouting priority 110'),
    // A vNIC's address is local for everybody: what others mean for somebody far away shall not be heard by its user.
    addChain(INET, 'inside'),
    addRule(INET, 'inside', 'ip daddr @owned4 ip daddr . meta skuid != @owner4 drop'),
    addRule(INET, 'inside', 'ip6 daddr @owned6 ip6 daddr . meta skuid != @owner6 drop'),
    addRule(INET, 'lock', 'oifname "lo" goto inside'),
    addRule(INET, 'lock', 'oifname "vpn-tun*" goto enter'),
    addRule(INET, 'lock', 'ip saddr @vnic4 drop'),
    addRule(INET, 'lock', 'ip6 saddr @vnic6 drop'),
    addRule(INET, 'lock', BYPASSES),
    ...joins('lock'),
    addRule(INET, 'lock', `${SELECTION} vmap @outside_selection`),
    addRule(INET, 'lock', 'meta skuid vmap @outside_user'),
    addRule(INET, 'lock', 'goto root_outside'),
  ];
}

function otherTables(): string[] {
  return [
    // Which addresses the tunnel has is no business of the local network (MLLVD-CR-24-03). arp_ignore would do it, for every address of the host.
    `add set ${ARP} vnic4 { type ipv4_addr; }`,
    addChain(ARP, 'probed', 'type filter hook input priority filter'),
    addRule(ARP, 'probed', 'arp daddr ip @vnic4 drop'),
    addChain(ARP, 'root_probed'),
    addRule(ARP, 'probed', 'goto root_probed'),
    // AF_PACKET goes past all hooks above, and arrives here without having been let out by the lock.
    `add map ${NETDEV} user { type uid : verdict; }`,
    addChain(NETDEV, 'root_frames'),
    addChain(NETDEV, 'unexplained'),
    addRule(NETDEV, 'unexplained', 'drop'),
    addChain(NETDEV, 'frames'),
    // What has a route came through the hooks above. Stacked devices may drop it on the way: then the mark tells.
    addRule(NETDEV, 'frames', 'meta rtclassid & 0 == 0 accept'),
    addRule(NETDEV, 'frames', BYPASSES),
    addRule(NETDEV, 'frames', 'meta skuid vmap @user'),
    addRule(NETDEV, 'frames', 'goto root_frames'),
  ];
}
