/**
 * From the names in config.trustedApplications and config.blockedApplications to what the kernel can select by: a uid or a
 * cgroup. docs/api.md "Who is covered". Pure: users, policy and cgroups come in through `lookup`. It does not know how the
 * selectors are applied, nor application ids of desktops and package systems.
 */
import { isCgroupPath } from '../kernel/cgroup.js';
import { BusinessError } from '../model/errors.js';
import { quote } from '../model/quote.js';

/** `path` is the cgroup's path in cgroup v2 ('/foo'). For a user's VPN it selects only that user's sockets in the cgroup. */
export type AppSelector = { kind: 'uid'; uid: number } | { kind: 'cgroup'; path: string };

/** One entry of the policy file's `applications`: exactly one of the three. */
export interface PolicyApplication {
  user?: string;
  uid?: number;
  cgroup?: string;
}

export interface ApplicationLookup {
  applications: ReadonlyMap<string, PolicyApplication>;
  userByName(name: string): { uid: number } | undefined;
  cgroupExists(path: string): boolean;
}

/** A selector, or why the name, although it is of the resolver's kind, names nothing. */
type Resolution = AppSelector | { kind: 'nothing'; reason: string };

/** undefined: not this resolver's kind of name, ask the next. Any other answer is final. */
type Resolver = (name: string, lookup: ApplicationLookup) => Resolution | undefined;

/** In order of precedence. A new kind of name is a new resolver. */
const RESOLVERS: readonly Resolver[] = [
  (name, lookup) => {
    const application = lookup.applications.get(name);
    if (application === undefined) return undefined;
    if (application.user !== undefined) return byUser(application.user, lookup);
    if (application.uid !== undefined) return byUid(String(application.uid));
    return byCgroup(application.cgroup ?? '', lookup);
  },
  (name, lookup) => (name.startsWith('user:') ? byUser(name.slice('user:'.length), lookup) : undefined),
  (name) => (name.startsWith('uid:') ? byUid(name.slice('uid:'.length)) : undefined),
  (name, lookup) => (name.startsWith('cgroup:') ? byCgroup(name.slice('cgroup:'.length), lookup) : undefined),
];
const TRIED = 'it is no application of the policy and begins with none of user:, uid:, cgroup:';

const MAX_NAME_LENGTH = 4096;
/** 4294967295 is "no uid" to the kernel. */
const MAX_UID = 0xfffffffe;

/**
 * The selectors of one list, without repetitions, in the order of the names. `owner` is the uid whose VPN it is. A user's VPN covers
 * nobody but that user, so it may not name another uid; nor may it block its own, which would leave nobody covered.
 * Throws BusinessError 2200001 with the field of the name at fault.
 *
 * @example resolveApplications(['uid:1000', 'cgroup:/web'], 'trustedApplications', lookup, 0)
 *          // [{ kind: 'uid', uid: 1000 }, { kind: 'cgroup', path: '/web' }]
 */
export function resolveApplications(
  names: readonly string[],
  field: 'trustedApplications' | 'blockedApplications',
  lookup: ApplicationLookup,
  owner: number,
): AppSelector[] {
  const selectors = new Map<string, AppSelector>();
  names.forEach((name, index) => {
    const refuse = (reason: string) => new BusinessError(2200001, `config.${field}[${index}]`, reason);
    if (name.length > MAX_NAME_LENGTH) throw refuse(`longer than ${MAX_NAME_LENGTH} characters`);
    const selector = resolve(name, lookup);
    if (selector.kind === 'nothing') throw refuse(`${quote(name)} resolves to nothing: ${selector.reason}`);
    if (selector.kind === 'uid' && owner !== 0) {
      if (selector.uid !== owner) {
        throw refuse(`${quote(name)} names uid ${selector.uid}, but this VPN covers only uid ${owner}`);
      }
      if (field === 'blockedApplications') {
        throw refuse(`${quote(name)} is everything this VPN covers (uid ${owner}): nothing would be left`);
      }
    }
    selectors.set(selector.kind === 'uid' ? `uid:${selector.uid}` : `cgroup:${selector.path}`, selector);
  });
  return [...selectors.values()];
}

function resolve(name: string, lookup: ApplicationLookup): Resolution {
  for (const resolver of RESOLVERS) {
    const resolution = resolver(name, lookup);
    if (resolution !== undefined) return resolution;
  }
  return nothing(TRIED);
}

function byUser(user: string, lookup: ApplicationLookup): Resolution {
  // The passwd database is asked with a C string, which would end at a NUL and find another user.
  const entry = user === '' || user.includes('\0') ? undefined : lookup.userByName(user);
  return entry === undefined ? nothing(`there is no user ${quote(user)}`) : { kind: 'uid', uid: entry.uid };
}

function byUid(text: string): Resolution {
  const uid = /^(0|[1-9][0-9]{0,9})$/.test(text) ? Number(text) : Number.NaN;
  return uid <= MAX_UID ? { kind: 'uid', uid } : nothing(`${quote(text)} is no uid in 0..${MAX_UID}`);
}

function byCgroup(path: string, lookup: ApplicationLookup): Resolution {
  if (!isCgroupPath(path)) return nothing(`${quote(path)} is no absolute, normalised cgroup path`);
  if (path === '/') return nothing('the root cgroup is the whole machine, not an application');
  return lookup.cgroupExists(path) ? { kind: 'cgroup', path } : nothing(`there is no cgroup ${quote(path)}`);
}

function nothing(reason: string): Resolution {
  return { kind: 'nothing', reason };
}
