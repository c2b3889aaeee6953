/**
 * Every name and number by which host state is recognised as ours, and each VPN's share of them, derived from its slot
 * number. A sweep needs nothing else. ARCHITECTURE.md, "Host state", says how they were chosen.
 */

/** Our field of the 32-bit fwmark. All other bits belong to others: preserved, never compared. */
export const MARK_FIELD = 0xff000000;
/** A protected socket: its packets leave by the physical network. */
export const BYPASS_MARK = 0x80000000;
/** The rest of the field: which VPN's selection a socket or packet belongs to. 0 = none. */
export const SELECTION_FIELD = 0x7f000000;
/** How many selections there can be at once. */
export const SELECTIONS = 127;
/** The last ones are for root's VPN alone, of which there is one at a time. */
export const ROOT_SELECTIONS = 7;

export function selectionMark(selection: number): number {
  return selection * 0x01000000;
}

/** rtm_protocol of our routes (iproute2's rt_protos leaves 177 free). */
export const ROUTE_PROTOCOL = 177;
/** IFLA_GROUP of our links: 'vpn' in ASCII. */
export const LINK_GROUP = 0x76706e;
/** Links on their way out, so that many are unregistered in one go. */
export const DYING_LINK_GROUP = 0x76706f;
export const NFT_TABLE = 'vpnd';
/** A table of its own: it outlives VPNs and vpnd. */
export const LOCKDOWN_TABLE = 'vpnd_lockdown';
/** In its place for a moment. */
export const HANDOVER_TABLE = `${NFT_TABLE}_handover`;
/** Number of the queue that says that a service lives in this network namespace (kernel/queue-claim.ts): 'vp' in ASCII. */
export const SERVICE_QUEUE = 0x7670;
/** Conntrack zone of the first VPN's queries; 16 bits, those that others take are small. */
export const FIRST_ZONE = 0x7600;
/** Behind every device route; not 4294967295, which iproute2 cannot flush for IPv6. */
export const UNREACHABLE_METRIC = 4294967294;

/** The largest uid there is; 4294967295 means "none". A user namespace may map fewer (user_namespaces(7)). */
export const LAST_UID = 4294967294;
/** The last of the uids that distributions give to services (login.defs: UID_MIN is 1000). */
export const LAST_SYSTEM_UID = 999;

/** VPNs at once. Bounded by the priorities between `LADDERS` and `END`. */
export const SLOTS = 1500;

/**
 * Rule priorities. Traffic walks downwards; the gotos let it pass over what cannot concern it, so that a process that no
 * VPN covers meets at most one rule a VPN and family, and one for 32 neighbouring uids with VPNs (sections.ts):
 *
 *    7999  the table local, where the machine has it behind ours (local-rule.ts)
 *    8000  in front of others' (front-rules.ts)
 *    9900  answers of wildcard UDP servers
 *   10000  unmarked: goto 11000           11000  from this host: goto 12000     12000  not uid 0: goto 13000
 *   10002  protected: copies of others'
 *   10010  protected: main, default       11100  from a vNIC                    12005  is a gateway on-link?
 *                                                                               12010  no source address: goto 12999
 *   10100  selected by mark               11800  from root's vNIC: goto 30000   12100  from root's vNIC's address
 *                                         11900  forwarded: root's VPN          12200  from a network of users' vNICs
 *                                                                               12300  sections: from which address
 *                                                                               12999  uid 0: goto 14000
 *   13100  one of 32 uids                 14100  root's VPN                     14999  goto 30000
 *   13200  sections: which uid             14890  lockdown of users without a VPN
 *   15000  ladders, ten a slot, entered only by goto                            30000  nop: others' rules, main, default
 */
export const PRIORITY = {
  first: 9900,
  udpService: 9900,
  unmarked: 10000,
  bypass: 10010,
  bypassDefault: 10011,
  bypassEnd: 10019,
  selected: 10100,
  fromHost: 11000,
  fromLink: 11100,
  toForwarded: 11800,
  forwarded: 11900,
  notRoot: 12000,
  ofProtocol: 12005,
  gatewayCheck: 12006,
  fromNowhere: 12010,
  fromRootAddress: 12100,
  fromUserAddress: 12200,
  pastAddresses: 12299,
  addressSections: 12300,
  rootOnly: 12999,
  users: 13000,
  user: 13100,
  pastUsers: 13199,
  userSections: 13200,
  rootVpn: 14000,
  rootBlocked: 14100,
  rootCovered: 14110,
  lockdown: 14890,
  /** Not with the one before: an older service left a wider rule there, and a deletion takes the first that fits. */
  lockdownLeases: 14895,
  lockedUser: 14900,
  pastLockdown: 14910,
  lockedLadder: 14950,
  lockdownEnd: 14953,
  uncovered: 14999,
  ladders: 15000,
  end: 30000,
} as const;

/**
 * Copies of others' rules in front of protected sockets' look-up of main, and behind that of default. Of a priority they stand in the
 * order they came in; two places, so that another list stands whole before the old one goes.
 */
export const COPIES = { before: [10002, 10004], behind: [10012, 10014] } as const;

/**
 * The rule for local addresses is in front of everything of ours. With another rule in front of it, rules without a priority land
 * right before it; so it, and what we put in front of such, may have to go further.
 */
export const LOCAL = { first: 7000, last: 7999 } as const;

export function isLocalPriority(priority: number): boolean {
  return priority >= LOCAL.first && priority <= LOCAL.last;
}

/** Two priorities each, up to `rootOnly` and `rootVpn`. When all are taken, rules go without a section. */
export const ADDRESS_SECTIONS = 349;
export const USER_SECTIONS = 400;

/** Within a slot's ladder. */
export const STEP = {
  explicit: 1,
  /** Of a family that is not accepted. */
  answers: 1,
  lan: 3,
  everything: 4,
  excluded: 5,
  excludedOtherwise: 6,
  closed: 7,
  elsewhere: 8,
} as const;

const TABLES = 50000;
const PER_SLOT = 10;
/** Copies of the routes to local networks that covered traffic may reach directly; one table for all VPNs. */
export const LAN_TABLE = TABLES + SLOTS * PER_SLOT;

export interface SlotNumbers {
  slot: number;
  link: string;
  /** First priority of the slot's ladder. */
  ladder: number;
  /** Routes the app named, and excluded prefixes. */
  explicitTable: number;
  /** The default route into the vNIC, with unreachable behind. */
  defaultTable: number;
  /** ::1, for answers of a redirected loopback resolver. */
  loopbackTable: number;
}

export function slotNumbers(slot: number): SlotNumbers {
  const tables = TABLES + slot * PER_SLOT;
  return {
    slot,
    link: `vpn-tun${slot}`,
    ladder: PRIORITY.ladders + slot * PER_SLOT,
    explicitTable: tables,
    defaultTable: tables + 2,
    loopbackTable: tables + 3,
  };
}

export function isOurTable(table: number): boolean {
  return table >= TABLES && table <= LAN_TABLE;
}

export function isOurPriority(priority: number): boolean {
  return priority >= PRIORITY.first && priority <= PRIORITY.end;
}

/** Where rules without a chosen priority land while ours stand, and how far in front of them we go. */
export const FRONT = { first: 8000, last: PRIORITY.unmarked - 1, distance: 50 } as const;

export function isFrontPriority(priority: number): boolean {
  return priority >= FRONT.first && priority <= FRONT.last;
}

export function isLockdownPriority(priority: number): boolean {
  return priority >= PRIORITY.lockdown && priority <= PRIORITY.lockdownEnd;
}

/** The tag in the name of a slot's BPF programs: at most 15 characters, unique to this network namespace. */
export function programName(netnsInode: bigint, slot: number): string {
  return `${programPrefix(netnsInode)}${slot.toString(36).padStart(3, '0')}`;
}

/** `vpnd_` and seven base-36 digits, which hold any 32-bit inode number. */
export function programPrefix(netnsInode: bigint): string {
  return `vpnd_${(netnsInode % 2n ** 36n).toString(36).padStart(7, '0').slice(-7)}`;
}

/** Of the programs that all VPNs share. No slot has these letters. */
export function sharedProgramName(netnsInode: bigint, what: 'app' | 'rcv' | 'out'): string {
  return `${programPrefix(netnsInode)}${what}`;
}

/** The network namespace that a program of ours is for, by its name; undefined when it is none of ours. */
export function inodeOfProgram(name: string): bigint | undefined {
  const [, digits] = /^vpnd_([0-9a-z]{7})[0-9a-z]{3}$/.exec(name) ?? [];
  return digits === undefined ? undefined : BigInt(Number.parseInt(digits, 36));
}
