/**
 * May this caller do this? Pure but for the name of a user who is refused: a policy and what the kernel says about the peer go in, an
 * answer comes out.
 */
import { BusinessError } from '../model/errors.js';
import { LocalUsers } from './account-files.js';
import { type CallerMatch, MANAGE_VPN, type Policy } from './policy.js';

/** The process at the other end of the socket, as the kernel describes it. */
export interface Peer {
  /** 0 when the process is in a pid namespace that the service cannot see. */
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  /** Names of the systemd system units in the peer's cgroup path. */
  readonly units: readonly string[];
}

export interface Judgement {
  readonly isSystem: boolean;
  readonly permissions: ReadonlySet<string>;
  readonly isGuest: boolean;
}

const LOCAL_USERS = new LocalUsers();
/** What root is, whatever the policy says: whoever can write the policy shall not be told to. */
const ROOT: Judgement = { isSystem: true, permissions: new Set([MANAGE_VPN]), isGuest: false };

/** Every rule that matches counts, whichever grants what. A peer without a visible pid matches none. */
export function judge(policy: Policy, peer: Peer): Judgement {
  if (peer.uid === 0 && peer.pid > 0) return ROOT;
  const rules = peer.pid > 0 ? policy.callers.filter(({ match }) => matches(match, peer)) : [];
  return {
    isSystem: rules.some((rule) => rule.isSystem),
    permissions: new Set(rules.flatMap((rule) => rule.permissions)),
    isGuest: policy.guests.uids.has(peer.uid) || groupsOf(peer).some((gid) => policy.guests.gids.has(gid)),
  };
}

/**
 * Why the call is refused, or undefined. In the order of the API: 202 no system application, 201 without
 * ohos.permission.MANAGE_VPN or VPNs disabled, 2203001 a guest (setUp only).
 */
export function refusal(
  policy: Policy,
  peer: Peer,
  call: 'setUp' | 'protect' | 'destroy',
  users: Pick<LocalUsers, 'nameOf'> = LOCAL_USERS,
): BusinessError | undefined {
  const { isSystem, permissions, isGuest } = judge(policy, peer);
  const who = `uid ${peer.uid}`;
  if (peer.pid <= 0) {
    return refused(
      202,
      `the caller (${who}) is in a pid namespace that the service cannot see; run it outside, or in a container with the pid namespace of the host`,
    );
  }
  const grant = () => howToAllow(policy, peer, users.nameOf(peer.uid));
  if (!isSystem) return refused(202, `${who} is no system application; ${grant()}`);
  if (!permissions.has(MANAGE_VPN)) return refused(201, `${who} does not have ${MANAGE_VPN}; ${grant()}`);
  if (policy.isDisabled) {
    return refused(201, `VPNs are disabled by the administrator ("disabled" in ${policy.file})`);
  }
  if (isGuest && call === 'setUp') {
    return refused(
      2203001,
      `${who} is a guest; to change that, set "guests" in ${policy.file}, then: sudo vpnctl reload`,
    );
  }
  return undefined;
}

function matches(match: CallerMatch, peer: Peer): boolean {
  if ('uid' in match) return match.uid === peer.uid;
  if ('gid' in match) return groupsOf(peer).includes(match.gid);
  return peer.units.includes(match.slice);
}

function groupsOf({ gid, groups }: Peer): readonly number[] {
  return [gid, ...groups];
}

/** What helps is a group for whom usermod(8) knows, where the policy has one, else an entry in the policy. */
function howToAllow(policy: Policy, { uid }: Peer, name: string | undefined): string {
  if (policy.allowsGroup && name !== undefined) {
    return `to allow it: sudo groupadd -f vpn && sudo usermod -aG vpn ${name}, then log in again`;
  }
  const rule = { match: { uid }, system: true, permissions: [MANAGE_VPN] };
  return `to allow it, add ${JSON.stringify(rule)} to "callers" in ${policy.file}, then: sudo vpnctl reload`;
}

function refused(code: 201 | 202 | 2203001, reason: string): BusinessError {
  return new BusinessError(code, undefined, reason);
}
