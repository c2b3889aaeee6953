/**
 * Every kind of packet that the locks let out although its user is covered or locked down, as data with the reason. It says what
 * plan-firewall.ts, plan-lockdown.ts and firewall.ts do; the lab compares it with what is captured. Pure.
 */
import type { LeakException } from '../model/leak-exception.js';
import { FAMILIES, IPV6 } from '../model/vpn-types.js';
import type { OutsideServer } from './dns-servers.js';
import type { HostPolicy } from './host-policy.js';
import { DISCOVERY } from './lan.js';
import type { LanRoute } from './links.js';
import type { Plan } from './plan.js';

type Kind = Omit<LeakException, 'uid' | 'lockdown'>;

/** Of every VPN. */
const SOCKETS: readonly Kind[] = [
  {
    kind: 'protected',
    socket: 'protected',
    reason: 'the app asked for it with protect(): its tunnel goes through these',
  },
  {
    kind: 'inbound',
    socket: 'inbound',
    reason:
      'answers to connections, datagrams and pings from outside go back the way these came; so an app with an accomplice outside can always be a server there',
  },
  {
    kind: 'privileged',
    socket: 'privileged',
    reason: 'a program with CAP_NET_RAW or CAP_NET_ADMIN can mark its own sockets as protected, and use AF_XDP',
  },
  {
    kind: 'handed-over',
    socket: 'handed-over',
    reason:
      'a socket counts as that of the user and application that made it: one that somebody handed over (SCM_RIGHTS), left to a child, or made before changing its user is covered, or not, as its maker is',
  },
  {
    kind: 'vsock',
    socket: 'vsock',
    reason:
      'AF_VSOCK leads to the hypervisor and to virtual machines without any IP; like other families that are none, neither lock sees it',
  },
];

/** About what came in from outside, to whoever sent it. Of nobody, so that only a VPN or lockdown of everybody's stops them. */
const ERRORS_OF_THE_KERNEL: readonly Kind[] = [
  {
    kind: 'parameter-problem',
    family: 4,
    protocol: 'icmp',
    icmpTypes: [12],
    reason: 'the kernel says so of a packet from outside whose header it cannot read',
  },
  {
    kind: 'parameter-problem',
    family: 6,
    protocol: 'icmpv6',
    icmpTypes: [4],
    reason: 'the kernel says so of a packet from outside whose headers it cannot read',
  },
  {
    kind: 'reassembly',
    family: 4,
    protocol: 'icmp',
    icmpTypes: [11],
    reason: 'the kernel says so of a datagram from outside of which a fragment is missing',
  },
  {
    kind: 'reassembly',
    family: 6,
    protocol: 'icmpv6',
    icmpTypes: [3],
    reason: 'the kernel says so of a datagram from outside of which a fragment is missing',
  },
];

/** By whatever link a program names. Also where no local network is allowed. */
const JOINS: readonly Kind[] = [
  {
    kind: 'mld',
    family: 6,
    protocol: 'icmpv6',
    icmpTypes: [131, 132, 143],
    hopLimit: 1,
    reason: 'which multicast groups a program of this user joins or leaves the kernel tells the link by itself',
  },
  {
    kind: 'igmp',
    family: 4,
    protocol: 'igmp',
    hopLimit: 1,
    reason: 'which multicast groups a program of this user joins or leaves the kernel tells the link by itself',
  },
];

/** Of a user's VPN and lockdown: the kernel's and other users' packets are not covered, also when they are there because of that user. */
const AROUND_A_USER: readonly Kind[] = [
  {
    kind: 'reset',
    protocol: 'tcp',
    tcpFlags: 'rst',
    reason: 'the far end of a connection that setUp ended hears it from the kernel when it sends something',
  },
  {
    kind: 'unreachable',
    family: 4,
    protocol: 'icmp',
    icmpTypes: [3],
    reason: 'the same of a datagram that comes too late',
  },
  {
    kind: 'unreachable',
    family: 6,
    protocol: 'icmpv6',
    icmpTypes: [1],
    reason: 'the same of a datagram that comes too late',
  },
  ...ERRORS_OF_THE_KERNEL,
  ...JOINS,
  {
    kind: 'subordinate',
    socket: 'subordinate',
    reason:
      'programs under the uids that /etc/subuid lends this user, in a user namespace of its own, are other users to the kernel',
  },
];

/** A resolver of this host asks for others under its own user. What it can be asked by differs. */
const resolver = (reason: string): Kind => ({ kind: 'resolver', socket: 'resolver', reason });
const WITH_SERVERS = resolver(
  'what a program asks a resolver by other means than port 53 (nss-resolve, D-Bus) the resolver asks under its own user',
);
const WITHOUT_SERVERS = resolver(
  'the VPN has no name servers: what a program asks a resolver of this machine the resolver asks under its own user',
);
const UNDER_LOCKDOWN = resolver(
  'no resolver answers this user at port 53; one that is asked by a socket of its own (nss-resolve, D-Bus) asks on under its own user',
);

const DNS_REASONS: Readonly<Record<OutsideServer['way'], string>> = {
  lan: "the VPN's name server is on a local network that the policy allows: every query goes there, past the tunnel",
  excluded: "the VPN's name server is in a prefix that the app excluded: every query goes there, past the tunnel",
  uncovered: 'the VPN has no route to its name server: every query goes there, past the tunnel',
};

const DHCP_REASON =
  "keeps the address of the link: of system accounts only (uids 0 to 999, as DHCP clients have), and to any server, since the lease's may be beyond the link";

/** Without these the machine loses its links. */
const LINK_UPKEEP: readonly Kind[] = [
  { kind: 'arp', protocol: 'arp', reason: 'finds the hardware addresses of the router and of local hosts' },
  {
    kind: 'ndp',
    family: 6,
    protocol: 'icmpv6',
    icmpTypes: [133, 134, 135, 136],
    hopLimit: 255,
    reason: 'neighbour discovery: without it IPv6 ends when the neighbour cache is flushed',
  },
  {
    kind: 'mld',
    family: 6,
    protocol: 'icmpv6',
    icmpTypes: [130, 131, 132, 143],
    hopLimit: 1,
    reason: 'tells switches which multicast groups to send here, those of neighbour discovery among them',
  },
  {
    kind: 'igmp',
    family: 4,
    protocol: 'igmp',
    hopLimit: 1,
    reason: 'tells switches which multicast groups to send here',
  },
  {
    kind: 'dhcp',
    family: 4,
    protocol: 'udp',
    sourcePort: 68,
    destinationPort: 67,
    reason: DHCP_REASON,
  },
  {
    kind: 'dhcp',
    family: 6,
    protocol: 'udp',
    sourcePort: 546,
    destinationPort: 547,
    reason: DHCP_REASON,
  },
];

/** What a packet shows has no word for them. */
const LINK_FRAMES: Kind = {
  kind: 'link-frames',
  socket: 'packet',
  reason:
    "frames of root's packet sockets that are no IP, as of 802.1X, LLDP and PPPoE: without them a link may not come up",
};

/** Nothing leaves by it: it says what users lose whom no VPN covers. */
const NO_MULTIPATH: Kind = {
  kind: 'multipath',
  socket: 'multipath',
  reason:
    'nothing leaves by it: without BPF it cannot be told whose a further path of MPTCP is, so nobody gets one, also no user without a VPN',
};

/** Without a second lock that tells whose subflows are (EgressLockAbility). */
export function exceptionOfMultipath(uid: number, lockdown?: true): LeakException {
  const { kind, ...rest } = NO_MULTIPATH;
  return { kind, uid, ...(lockdown && { lockdown }), ...rest };
}

export function exceptionsOfVpn(plan: Plan, lan: readonly LanRoute[], policy: HostPolicy): LeakException[] {
  const isRoot = plan.owner === 0;
  const excluded = FAMILIES.flatMap((family): Kind[] => {
    const destinations = plan.shapes[family].excluded.map((prefix) => `${prefix.destination}/${prefix.prefixLength}`);
    const reason = 'the app excluded these prefixes from the VPN; more specific routes of its own go in all the same';
    return destinations.length === 0 ? [] : [{ kind: 'excluded', family: digit(family), destinations, reason }];
  });
  const servers = FAMILIES.flatMap((family): Kind[] => {
    const outside = plan.outsideServers.filter((server) => server.family === family);
    return [...new Set(outside.map(({ way }) => way))].map((way) => ({
      kind: 'dns',
      family: digit(family),
      destinationPort: 53,
      destinations: outside.flatMap((server) =>
        server.way === way ? [`${server.address}/${family === IPV6 ? 128 : 32}`] : [],
      ),
      reason: DNS_REASONS[way],
    }));
  });
  const direct = [...policy.forwarding].flatMap(([from, way]): Kind[] =>
    isRoot && way === 'direct'
      ? [{ kind: 'forwarded', from, reason: 'the policy lets this link forward directly' }]
      : [],
  );
  const packets: Kind[] =
    isRoot && plan.cgroupMarks.length + plan.applicationMarks.length > 0
      ? [
          {
            kind: 'packet-socket',
            socket: 'packet',
            reason: 'a packet socket shows no cgroup, so those of listed applications are told by their user only',
          },
        ]
      : [];
  const around = isRoot
    ? [...LINK_UPKEEP, LINK_FRAMES]
    : [...AROUND_A_USER, plan.hasDns ? WITH_SERVERS : WITHOUT_SERVERS];
  const kinds = [...SOCKETS, ...lanKinds(lan), ...excluded, ...servers, ...around, ...direct, ...packets];
  return kinds.map(({ kind, ...rest }) => ({ kind, uid: plan.owner, ...rest }));
}

export function exceptionsOfLockdown(users: Iterable<number>, lan: readonly LanRoute[]): LeakException[] {
  const sockets = SOCKETS.filter(({ kind }) => kind !== 'inbound');
  const kinds = [...sockets, ...lanKinds(lan).map(withoutDns), ...LINK_UPKEEP, LINK_FRAMES];
  // Joins are among what keeps the links alive.
  const around = AROUND_A_USER.filter((each) => !JOINS.includes(each));
  return [...users].flatMap((uid) =>
    // Everyone's holds the resolver as well.
    [...kinds, ...(uid === 0 ? [] : [...around, UNDER_LOCKDOWN])].map(
      ({ kind, ...rest }): LeakException => ({ kind, uid, lockdown: true, ...rest }),
    ),
  );
}

function withoutDns({ reason, ...kind }: Kind): Kind {
  return { ...kind, exceptDestinationPort: 53, reason: `${reason}; but no resolver there (port 53)` };
}

function lanKinds(lan: readonly LanRoute[]): Kind[] {
  const networks = lan.map(
    ({ family, destination, prefixLength, dev }): Kind => ({
      kind: 'lan',
      family: digit(family),
      destinations: [`${destination}/${prefixLength}`],
      links: [dev],
      reason: 'a local network that the policy ("lan") allows',
    }),
  );
  const groups = FAMILIES.flatMap((family): Kind[] => {
    const links = [...new Set(lan.filter((route) => route.family === family).map(({ dev }) => dev))];
    const destinations = DISCOVERY[family].map(({ address, prefixLength }) => `${address}/${prefixLength}`);
    const reason = 'discovery on the link itself, for printers and the like: mDNS, SSDP, broadcast';
    return links.length === 0 ? [] : [{ kind: 'lan-discovery', family: digit(family), destinations, links, reason }];
  });
  return [...networks, ...groups];
}

function digit(family: 1 | 2): 4 | 6 {
  return family === IPV6 ? 6 : 4;
}
