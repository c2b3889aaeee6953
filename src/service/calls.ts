/**
 * The road of each call, behind the socket and in front of the host: who may (202, 201, 2203001), what is asked (401, 2200001),
 * whether there is one already (2203002), then the work. A call that is refused has changed nothing. Descriptors that came
 * with a call are borrowed: server.ts closes them when it is answered.
 */
import { installedAppIds } from '../host/app-installed.js';
import { runningAppIds } from '../host/app-scan.js';
import { resolveApplications } from '../host/applications.js';
import { findHostAddress } from '../host/host-addresses.js';
import { slotNumbers } from '../host/numbers.js';
import { protectSocket } from '../host/protect.js';
import type { Method, Methods, ServiceStatus, VpnStatus } from '../ipc/methods.js';
import { PROTOCOL_VERSION } from '../ipc/methods.js';
import { VERSION } from '../ipc/version.js';
import { isAbsent } from '../kernel/absence.js';
import { cgroupExists } from '../kernel/cgroup.js';
import { libc } from '../kernel/ffi.js';
import { peerCredentials } from '../kernel/peer.js';
import { AF_UNIX, SOCK_STREAM, socketDomain, socketType } from '../kernel/socket-options.js';
import { sendWithFds } from '../kernel/unix-socket.js';
import { BusinessError } from '../model/errors.js';
import { parseOffload } from '../model/offload.js';
import { parseVpnConfig } from '../model/vpn-config.js';
import { checkVpnConfig } from '../model/vpn-config-check.js';
import { judge, refusal } from './authorize.js';
import type { ServiceContext } from './context.js';
import { enterApplication } from './launch.js';
import { names } from './names.js';
import type { LiveVpn } from './registry.js';
import type { Session } from './session.js';

type Handler<M extends Method> = (
  context: ServiceContext,
  session: Session,
  params: Record<string, unknown>,
  fds: readonly number[],
) => Methods[M]['result'] | Promise<Methods[M]['result']>;

export const HANDLERS: { readonly [M in Method]: Handler<M> } = {
  hello: ({ policy }, session) => {
    session.greeted = true;
    const { isSystem } = judge(policy(), session.peer);
    const reason = isSystem ? undefined : refusal(policy(), session.peer, 'destroy')?.data.reason;
    return { protocol: PROTOCOL_VERSION, version: VERSION, isSystem, ...(reason !== undefined && { reason }) };
  },

  setUp: (context, session, params, fds) => {
    const config = parseVpnConfig(params.config);
    const offload = parseOffload(params.offload);
    authorize(context, session, 'setUp');
    const { uid } = session.peer;
    return context.registry.inOrder(uid, () => setUp(context, session, { config, offload }, fds));
  },

  protect: (context, session, _params, [fd]) => {
    authorize(context, session, 'protect');
    const protect = () => protectSocket(fd ?? -1, context.host.netnsCookie);
    const { uid } = session.peer;
    // Nothing to wait for: no turn of the event loop either.
    if (context.registry.isIdle(uid)) return protect();
    return context.registry.inOrder(uid, async () => protect());
  },

  destroy: (context, session) => {
    authorize(context, session, 'destroy');
    requireSameNetwork(context, session);
    const { uid } = session.peer;
    return context.registry.inOrder(uid, async () => {
      await context.registry.lower(uid, 'destroyed');
      return {};
    });
  },

  enter: enterApplication,

  status: ({ registry, host, policy }, session) =>
    statusFor(session.peer.uid, registry.all(), host.rootWarnings(), policy().lockdown),

  leaks: ({ host }, session) => ({
    exceptions: host.exceptions(session.peer.uid === 0 ? undefined : session.peer.uid),
  }),

  reload: (context, session) => {
    authorizeRoot(session);
    requireSameNetwork(context, session);
    return context.reload();
  },

  subscribe: (context, session) => {
    const send = (event: object) => context.send(session, { jsonrpc: '2.0', method: 'event', params: event });
    if (!session.subscribed) {
      session.subscribed = true;
      session.onClose(context.events.subscribe({ uid: session.peer.uid, send }));
    }
    return { sequence: context.events.sequence };
  },
};

/** Also where VPNs are disabled: that is what a policy may be read for. */
function authorizeRoot({ peer: { uid, pid } }: Session): void {
  if (uid === 0 && pid > 0) return;
  throw new BusinessError(201, undefined, 'the policy is read again for root only: sudo vpnctl reload');
}

function authorize({ policy }: ServiceContext, session: Session, call: 'setUp' | 'protect' | 'destroy'): void {
  const refused = refusal(policy(), session.peer, call);
  if (refused) throw refused;
}

/**
 * Root of a container that was lent the socket is root by its uid, and would get and end the VPN of everyone on this host. An accepted
 * connection is in the network namespace of the socket that connected (unix_stream_connect()), and that one was made there.
 */
function requireSameNetwork({ host }: ServiceContext, session: Session): void {
  if (session.netnsCookie === host.netnsCookie) return;
  const reason =
    "the caller is in another network namespace than the service's, as in a container, and would have a VPN of a network that is not its own; start a vpnd there";
  throw new BusinessError(2200003, undefined, reason);
}

async function setUp(
  context: ServiceContext,
  session: Session,
  { config, offload }: Required<Methods['setUp']['params']>,
  [mailbox]: readonly number[],
): Promise<Methods['setUp']['result']> {
  const { registry, policy, log } = context;
  const { uid, pid } = session.peer;
  const slot = registry.reserveSlot();
  let vpn: LiveVpn;
  try {
    const spec = checkVpnConfig(config, slotNumbers(slot).link);
    if (uid !== 0) refuseHostAddress(spec.addresses.map(({ address }) => address));
    const { applications } = policy();
    const lookup = { applications, userByName: names.userByName, cgroupExists, installedAppIds, runningAppIds };
    const trusted = await resolveApplications(spec.trustedApplications, 'trustedApplications', lookup, uid);
    const blocked = await resolveApplications(spec.blockedApplications, 'blockedApplications', lookup, uid);
    const existing = registry.get(uid);
    if (existing) {
      const who = existing.pid === pid ? 'this process' : `process ${existing.pid}`;
      throw new BusinessError(2203002, undefined, `uid ${uid} has ${existing.raised.plan.link.name}, set up by ${who}`);
    }
    if (mailbox === undefined || !isMailboxOf(uid, mailbox)) {
      throw new BusinessError(401, 'fds[0]', 'is not one end of a unix stream socketpair that the caller made');
    }
    requireSameNetwork(context, session);
    if (session.closed) throw new BusinessError(2200002, undefined, 'the caller went away');
    vpn = await registry.raise(
      { slot, owner: uid, spec, offload, trusted, blocked },
      { pid, program: session.program },
    );
  } catch (error) {
    registry.releaseSlot(slot);
    throw error;
  }
  const { fd, name } = vpn.raised.tun;
  // The service keeps no copy: the caller alone decides how long the descriptor lives.
  const sent = session.closed ? 'end' : sendWithFds(mailbox, Buffer.from([0]), [fd]);
  libc.close(fd);
  if (sent !== 1) {
    await registry.lower(uid, 'process ended', vpn);
    throw new BusinessError(
      2200003,
      undefined,
      'the descriptor could not be handed over: the mailbox does not take it',
    );
  }
  if (!session.vpn) session.onClose(() => endWith(context, session));
  session.vpn = vpn;
  // The caller first: it waits, and who listens does not.
  setImmediate(() => {
    log('info', 'vpn-up', { uid, pid, program: session.program, link: name });
    context.events.emit({ type: 'up', uid, pid, link: name });
  });
  return { link: name };
}

/**
 * A socketpair has its maker at both ends. A connection to somebody's daemon has that one's uid at the other end: it would take
 * the byte we send for root's word, since it comes with our credentials (SO_PASSCRED).
 */
function isMailboxOf(uid: number, fd: number): boolean {
  if (socketDomain(fd) !== AF_UNIX || socketType(fd) !== SOCK_STREAM) return false;
  try {
    return peerCredentials(fd).uid === uid;
  } catch (error) {
    // Not connected to anything.
    if (isAbsent(error, ['ENODATA', 'ENOTCONN'])) return false;
    throw error;
  }
}

/** Only root may: everybody's traffic from that address would go into this VPN. */
function refuseHostAddress(addresses: readonly string[]): void {
  const index = findHostAddress(addresses);
  if (index < 0) return;
  const field = `config.addresses[${index}].address.address`;
  throw new BusinessError(2200001, field, `${addresses[index]} is an address of this host on another interface`);
}

/** The VPN ends with the process or connection that set it up, whichever ends first; both close the session. */
function endWith({ registry, log }: ServiceContext, { vpn }: Session): void {
  if (!vpn) return;
  registry
    .inOrder(vpn.owner, () => registry.lower(vpn.owner, 'process ended', vpn))
    .catch((error: Error) => log('error', 'vpn-down-failed', { uid: vpn.owner, error: error.message }));
}

function statusFor(
  uid: number,
  vpns: readonly LiveVpn[],
  rootWarnings: readonly string[],
  lockdown: ReadonlySet<number>,
): ServiceStatus {
  const visible = vpns.filter((vpn) => uid === 0 || vpn.owner === uid);
  const statuses = visible.map((vpn) => {
    const warnings = vpn.owner === 0 ? rootWarnings : [];
    return { ...toStatus(vpn), ...(warnings.length > 0 && { warnings: [...warnings] }) };
  });
  const locked = [...lockdown].filter((each) => uid === 0 || each === 0 || each === uid).sort((a, b) => a - b);
  return { version: VERSION, pid: process.pid, vpns: statuses, lockdown: locked };
}

function toStatus({ owner, pid, program, raised, since, spec }: LiveVpn): VpnStatus {
  return {
    uid: owner,
    pid,
    program,
    link: raised.plan.link.name,
    since: since.toISOString(),
    addresses: spec.addresses.map(({ address, prefixLength }) => `${address}/${prefixLength}`),
    routes: spec.routes.length,
    dnsAddresses: spec.dnsAddresses.map(({ address }) => address),
    searchDomains: [...spec.searchDomains],
    mtu: spec.mtu,
    isIPv4Accepted: spec.accepted[1],
    isIPv6Accepted: spec.accepted[2],
    isBlocking: spec.isBlocking,
    offload: raised.plan.link.vnetHeader,
    isLegacy: spec.isLegacy,
    isMetered: spec.isMetered,
    ...(spec.vpnId !== undefined && { vpnId: spec.vpnId }),
    trustedApplications: [...spec.trustedApplications],
    blockedApplications: [...spec.blockedApplications],
  };
}
