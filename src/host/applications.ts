/**
 * From the names in config.trustedApplications and config.blockedApplications to what the kernel can select by: a uid, a cgroup,
 * or the id that an application's cgroups show. docs/api.md "Who is covered". Users, policy, cgroups and what is installed
 * come in through `lookup`. It does not know how the selectors are applied.
 */
import { isCgroupPath } from '../kernel/cgroup.js';
import { BusinessError } from '../model/errors.js';
import { quote } from '../model/quote.js';
import { spellings, whyNoAppId } from './app-ids.js';

/**
 * `path` is the cgroup's path in cgroup v2 ('/foo'); `id` is one of appIdCandidates() of the names of cgroups
 * (kernel/app-cgroup.ts). For a user's VPN both select only that user's sockets.
 */
export type AppSelector = { kind: 'uid'; uid: number } | { kind: 'cgroup'; path: string } | { kind: 'app'; id: string };

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
  /** By which ids an installed application runs; none when nothing is called so. */
  installedAppIds(name: string): readonly string[];
  /** All ids that cgroups show now. Asked once at most. */
  runningAppIds(): Promise<ReadonlySet<string>>;
}

/** Selectors, or why the name, although it is of the resolver's kind, names nothing. */
type Resolution = readonly AppSelector[] | { nothing: string };

/** undefined: not this resolver's kind of name, ask the next. Any other answer is final. */
type Resolver = (name: string, lookup: ApplicationLookup) => Resolution | undefined | Promise<Resolution>;

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
  byAppId,
];
const TRIED =
  'it is no application of the policy, begins with none of user:, uid:, cgroup:, and no desktop entry, flatpak, snap or ' +
  'systemd service of that name is installed for all users, nor does a cgroup show that it runs';

const MAX_NAME_LENGTH = 4096;
/** 4294967295 is "no uid" to the kernel. */
const MAX_UID = 0xfffffffe;

/**
 * The selectors of one list, without repetitions, in the order of the names; a name may be several. `owner` is the uid whose VPN
 * it is. A user's VPN covers nobody but that user, so it may not name another uid; nor may it block its own, which would leave
 * nobody covered.
 * Throws BusinessError 2200001 with the field of the name at fault.
 *
 * @example await resolveApplications(['uid:1000', 'firefox.desktop'], 'trustedApplications', lookup, 0)
 *          // [{ kind: 'uid', uid: 1000 }, { kind: 'app', id: 'firefox' }]
 */
export async function resolveApplications(
  names: readonly string[],
  field: 'trustedApplications' | 'blockedApplications',
  lookup: ApplicationLookup,
  owner: number,
): Promise<AppSelector[]> {
  const selectors = new Map<string, AppSelector>();
  let running: Promise<ReadonlySet<string>> | undefined;
  const runningAppIds = () => {
    running ??= lookup.runningAppIds();
    return running;
  };
  for (const [index, name] of names.entries()) {
    const refuse = (reason: string) => new BusinessError(2200001, `config.${field}[${index}]`, reason);
    if (name.length > MAX_NAME_LENGTH) {
      throw refuse(`has ${name.length} characters; a name has at most ${MAX_NAME_LENGTH}`);
    }
    const resolution = await resolve(name, { ...lookup, runningAppIds });
    if ('nothing' in resolution) throw refuse(`${quote(name)} resolves to nothing: ${resolution.nothing}`);
    for (const selector of resolution) {
      if (selector.kind === 'uid' && owner !== 0) {
        if (selector.uid !== owner) {
          throw refuse(`${quote(name)} names uid ${selector.uid}, but this VPN covers only uid ${owner}`);
        }
        if (field === 'blockedApplications') {
          throw refuse(`${quote(name)} is everything this VPN covers (uid ${owner}): nothing would be left`);
        }
      }
      selectors.set(Object.values(selector).join(':'), selector);
    }
  }
  return [...selectors.values()];
}

async function resolve(name: string, lookup: ApplicationLookup): Promise<Resolution> {
  for (const resolver of RESOLVERS) {
    const resolution = await resolver(name, lookup);
    if (resolution !== undefined) return resolution;
  }
  return nothing(TRIED);
}

function byUser(user: string, lookup: ApplicationLookup): Resolution {
  // The passwd database is asked with a C string, which would end at a NUL and find another user.
  const entry = user === '' || user.includes('\0') ? undefined : lookup.userByName(user);
  return entry === undefined ? nothing(`there is no user ${quote(user)}`) : [{ kind: 'uid', uid: entry.uid }];
}

function byUid(text: string): Resolution {
  const uid = /^(0|[1-9][0-9]{0,9})$/.test(text) ? Number(text) : Number.NaN;
  return uid <= MAX_UID ? [{ kind: 'uid', uid }] : nothing(`${quote(text)} is no uid in 0..${MAX_UID}`);
}

function byCgroup(path: string, lookup: ApplicationLookup): Resolution {
  if (!isCgroupPath(path)) return nothing(`${quote(path)} is no absolute, normalised cgroup path`);
  if (path === '/') return nothing('the root cgroup is the whole machine, not an application');
  return lookup.cgroupExists(path) ? [{ kind: 'cgroup', path }] : nothing(`there is no cgroup ${quote(path)}`);
}

/** Installed, or running: what is neither is as good as a typing mistake. */
async function byAppId(name: string, lookup: ApplicationLookup): Promise<Resolution> {
  const why = whyNoAppId(name);
  if (why !== undefined) return nothing(`it is no application of the policy, and ${why}`);
  const installed = lookup.installedAppIds(name);
  const ids = installed.length > 0 ? installed : idsIn(await lookup.runningAppIds(), name);
  return ids.length > 0 ? ids.map((id) => ({ kind: 'app', id })) : nothing(TRIED);
}

/** What a name with or without its suffix is called where it runs; as it stands before anything else. */
function idsIn(running: ReadonlySet<string>, name: string): string[] {
  const meanings = [name, name.replace(/\.desktop$/, ''), name.includes('@') ? `${name}.service` : name];
  return meanings.map(spellings).find((ids) => ids.some((id) => running.has(id))) ?? [];
}

function nothing(reason: string): Resolution {
  return { nothing: reason };
}
