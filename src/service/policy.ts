/**
 * Who may do what: the administrator's policy file (JSON), and what holds without one. Names of users and groups are
 * looked up when the policy is read, so that a decision needs no lookup; a name that does not exist is an error, because
 * a guest or lockdown user with a typo would be neither. A key that is absent means what it means without a file.
 */
import { isCgroupPath } from '../kernel/cgroup.js';
import { addressBits, clearHostBits, literalFamily, type Prefix } from '../model/address.js';
import { MAX_APPLICATION_LENGTH } from '../model/limits.js';
import { isLinkName } from '../model/link-name.js';
import { hasControlCharacter, quote } from '../model/quote.js';
import { type Entry, elements, members, oneOf, readBoolean, readDocument, readString, refuse } from './policy-json.js';

export const DEFAULT_POLICY_FILE = '/etc/vpnd/policy.json';
export const MANAGE_VPN = 'ohos.permission.MANAGE_VPN';

/** The passwd and group databases. */
export interface NameLookup {
  userByName(name: string): { uid: number } | undefined;
  groupByName(name: string): { gid: number } | undefined;
}

/** One kind of caller. `slice` is a systemd system unit (of any type) that the caller runs in. */
export type CallerMatch = { readonly uid: number } | { readonly gid: number } | { readonly slice: string };

export interface CallerRule {
  readonly match: CallerMatch;
  readonly isSystem: boolean;
  readonly permissions: readonly string[];
}

/** What an application's name stands for. */
export type ApplicationTarget = { readonly uid: number } | { readonly cgroup: string };

export interface Policy {
  /** Where to change it, for the reasons of refusals. */
  readonly file: string;
  /** Every rule that matches a caller counts. */
  readonly callers: readonly CallerRule[];
  readonly guests: { readonly uids: ReadonlySet<number>; readonly gids: ReadonlySet<number> };
  /** No VPN for anybody; live ones end. */
  readonly isDisabled: boolean;
  readonly applications: ReadonlyMap<string, ApplicationTarget>;
  /** Which physical networks covered traffic may reach directly. */
  readonly lan: 'private' | 'off' | readonly Prefix[];
  /** Ports of UDP servers that answer from any address of the host: their answers leave as they would without a VPN. */
  readonly udpServices: readonly number[];
  /** What becomes of traffic that a link forwards while root's VPN is up; links that are not named: through the VPN. */
  readonly forwarding: ReadonlyMap<string, 'direct' | 'block'>;
  /** uids whose traffic is blocked when no VPN is up. */
  readonly lockdown: ReadonlySet<number>;
  /** What the file does not say, so that what is built in holds. */
  readonly builtIn: ReadonlySet<'callers' | 'guests'>;
  /** Whether whoever joins the group `vpn` may set up VPNs, also when there is no such group yet. */
  readonly allowsGroup: boolean;
}

const GROUP = 'vpn';
const KEYS = ['callers', 'guests', 'disabled', 'applications', 'lan', 'udpServices', 'forwarding', 'lockdown'];
/** The largest uid; 2^32 - 1 means "no uid" to the kernel. */
const MAX_ID = 0xffff_fffe;

/** root, and members of group `vpn` if it exists, are system with MANAGE_VPN; group `guest` and user `nobody` are guests. */
export function defaultPolicy(names: NameLookup, file: string = DEFAULT_POLICY_FILE): Policy {
  const vpnGroup = names.groupByName(GROUP);
  const guestGroup = names.groupByName('guest');
  const nobody = names.userByName('nobody');
  const matches: CallerMatch[] = [{ uid: 0 }, ...(vpnGroup === undefined ? [] : [{ gid: vpnGroup.gid }])];
  return {
    file,
    callers: matches.map((match) => ({ match, isSystem: true, permissions: [MANAGE_VPN] })),
    guests: { uids: new Set(nobody && [nobody.uid]), gids: new Set(guestGroup && [guestGroup.gid]) },
    isDisabled: false,
    applications: new Map(),
    lan: 'private',
    udpServices: [],
    forwarding: new Map(),
    lockdown: new Set(),
    builtIn: new Set(['callers', 'guests']),
    allowsGroup: true,
  };
}

/** The same with what is built in looked up again: a group that is made later counts, one that has another number now does. */
export function withNamesOfNow(policy: Policy, names: NameLookup): Policy {
  if (policy.builtIn.size === 0) return policy;
  const base = defaultPolicy(names, policy.file);
  return {
    ...policy,
    callers: policy.builtIn.has('callers') ? base.callers : policy.callers,
    guests: policy.builtIn.has('guests') ? base.guests : policy.guests,
  };
}

/**
 * Reads a policy from the text of its file. Throws PolicyError with file, line and reason.
 *
 * @example parsePolicy('{"callers": [{"match": {"group": "staff"}, "system": true,
 *            "permissions": ["ohos.permission.MANAGE_VPN"]}], "guests": {"users": ["kiosk"]}}', file, names)
 */
export function parsePolicy(text: string, file: string, names: NameLookup): Policy {
  const fields = members(readDocument(text, file), KEYS);
  const read = <T>(key: string, parse: (entry: Entry, names: NameLookup) => T, fallback: T): T => {
    const entry = fields.get(key);
    return entry === undefined ? fallback : parse(entry, names);
  };
  const base = defaultPolicy(names, file);
  const builtIn = (['callers', 'guests'] as const).filter((key) => !fields.has(key));
  const callers = read('callers', readCallers, base.callers);
  return {
    file,
    callers,
    guests: read('guests', readGuests, base.guests),
    isDisabled: read('disabled', readBoolean, base.isDisabled),
    applications: read('applications', readApplications, base.applications),
    lan: read('lan', readLan, base.lan),
    udpServices: read('udpServices', readPorts, base.udpServices),
    forwarding: read('forwarding', readForwarding, base.forwarding),
    lockdown: read('lockdown', readUsers, base.lockdown),
    builtIn: new Set(builtIn),
    allowsGroup: builtIn.includes('callers') || allows(callers, names.groupByName(GROUP)?.gid),
  };
}

function allows(callers: readonly CallerRule[], gid: number | undefined): boolean {
  return callers.some(
    ({ match, isSystem, permissions }) =>
      'gid' in match && match.gid === gid && isSystem && permissions.includes(MANAGE_VPN),
  );
}

function readCallers(entry: Entry, names: NameLookup): CallerRule[] {
  return elements(entry).map((rule) => {
    const fields = members(rule, ['match', 'system', 'permissions']);
    const match = fields.get('match') ?? refuse(rule, 'has no match');
    const system = fields.get('system');
    const permissions = fields.get('permissions');
    return {
      match: readMatch(match, names),
      isSystem: system !== undefined && readBoolean(system),
      permissions: permissions === undefined ? [] : elements(permissions).map(readPermission),
    };
  });
}

function readMatch(entry: Entry, names: NameLookup): CallerMatch {
  const [kind, value] = oneOf(entry, ['user', 'uid', 'group', 'slice']);
  switch (kind) {
    case 'user':
      return { uid: readUserName(value, names) };
    case 'uid':
      return { uid: readId(value) };
    case 'group':
      return { gid: readGroupName(value, names) };
    default:
      return { slice: readUnit(value) };
  }
}

function readPermission(entry: Entry): string {
  const name = readString(entry);
  if (!/^ohos\.permission\.[A-Z0-9_]+$/.test(name)) refuse(entry, `${quote(name)} is no permission like ${MANAGE_VPN}`);
  return name;
}

/** systemd.unit(5). Units that users make for themselves prove nothing that the uid does not. */
function readUnit(entry: Entry): string {
  const name = readString(entry);
  const isUnit = name.length <= 255 && /^[A-Za-z0-9:_.\\@-]*[A-Za-z0-9:_.\\-]\.(service|slice|scope)$/.test(name);
  if (!isUnit) refuse(entry, `${quote(name)} is no systemd unit like vpn-agent.service or system-vpn.slice`);
  if (/^(-\.slice|user(-[0-9]+)?\.slice|user@[0-9]+\.service|session-.*\.scope)$/.test(name)) {
    refuse(entry, `${quote(name)} holds whatever its users start; match the user or group instead`);
  }
  return name;
}

function readGuests(entry: Entry, names: NameLookup): Policy['guests'] {
  const fields = members(entry, ['users', 'groups']);
  const users = fields.get('users');
  const groups = fields.get('groups');
  return {
    uids: users === undefined ? new Set() : readUsers(users, names),
    gids: new Set(groups === undefined ? [] : elements(groups).map((group) => readGroup(group, names))),
  };
}

/** A list of users, by name or uid. */
function readUsers(entry: Entry, names: NameLookup): Set<number> {
  return new Set(
    elements(entry).map((user) => (user.node.type === 'number' ? readId(user) : readUserName(user, names))),
  );
}

function readGroup(entry: Entry, names: NameLookup): number {
  return entry.node.type === 'number' ? readId(entry) : readGroupName(entry, names);
}

function readUserName(entry: Entry, names: NameLookup): number {
  const name = readString(entry);
  return names.userByName(name)?.uid ?? refuse(entry, `there is no user ${quote(name)}`);
}

function readGroupName(entry: Entry, names: NameLookup): number {
  const name = readString(entry);
  return names.groupByName(name)?.gid ?? refuse(entry, `there is no group ${quote(name)}`);
}

function readId(entry: Entry): number {
  const id: unknown = entry.node.type === 'number' ? entry.node.value : undefined;
  if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id <= MAX_ID) return id + 0;
  return refuse(entry, `is not a number in 0..${MAX_ID}`);
}

function readApplications(entry: Entry, names: NameLookup): Map<string, ApplicationTarget> {
  const applications = new Map<string, ApplicationTarget>();
  for (const [name, target] of members(entry)) {
    if (name === '' || name.length > MAX_APPLICATION_LENGTH || hasControlCharacter(name)) {
      refuse(target, 'the name is empty, too long, or has control characters');
    }
    applications.set(name, readTarget(target, names));
  }
  return applications;
}

function readTarget(entry: Entry, names: NameLookup): ApplicationTarget {
  const [kind, value] = oneOf(entry, ['user', 'uid', 'cgroup']);
  if (kind === 'cgroup') return { cgroup: readCgroup(value) };
  return { uid: kind === 'user' ? readUserName(value, names) : readId(value) };
}

/** A path as in /proc/PID/cgroup. It need not exist yet. */
function readCgroup(entry: Entry): string {
  const path = readString(entry);
  if (isCgroupPath(path) && !hasControlCharacter(path)) return path;
  return refuse(entry, `${quote(path)} is no cgroup path like /system.slice/a.service`);
}

function readLan(entry: Entry): Policy['lan'] {
  if (entry.node.type === 'array') return elements(entry).map(readCidr);
  const word: unknown = entry.node.value;
  return word === 'private' || word === 'off' ? word : refuse(entry, 'is not "private", "off" or a list of prefixes');
}

function readPorts(entry: Entry): number[] {
  const ports = elements(entry).map((port) => {
    const value: unknown = port.node.type === 'number' ? port.node.value : undefined;
    return typeof value === 'number' && isPort(value) ? value : refuse(port, 'is not a port in 1..65534');
  });
  return [...new Set(ports)];
}

/** Routing rules take no range that ends with 65535. */
function isPort(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= 65534;
}

function readForwarding(entry: Entry): Map<string, 'direct' | 'block'> {
  return new Map(
    [...members(entry)].map(([link, way]) => {
      if (!isLinkName(link)) refuse(way, `${quote(link)} is no name of a link like docker0`);
      const word: unknown = way.node.value;
      return [link, word === 'direct' || word === 'block' ? word : refuse(way, 'is not "direct" or "block"')];
    }),
  );
}

function readCidr(entry: Entry): Prefix {
  const text = readString(entry);
  const [address = '', digits = ''] = text.split(/\/(.*)/s);
  const family = literalFamily(address);
  const prefixLength = /^(0|[1-9][0-9]{0,2})$/.test(digits) ? Number(digits) : Number.NaN;
  if (family === undefined || !(prefixLength <= addressBits(family))) {
    refuse(entry, `${quote(text)} is no prefix like 192.168.0.0/16`);
  }
  const network = clearHostBits(address, prefixLength);
  if (network !== clearHostBits(address, 128))
    refuse(entry, `${quote(text)} has host bits; write ${network}/${prefixLength}`);
  return { address: network, prefixLength };
}
