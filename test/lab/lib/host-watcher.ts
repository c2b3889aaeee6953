/**
 * A process that watches its network namespace as the service does, with a small VPN of its own to be tampered with. Says
 * what it hears, a line of JSON each, and does what it is told on standard input:
 *
 *   raise   vpn-tun0 10.8.0.2/32 fd08::2/128, rules 13100, routes in tables 50002 (1,000 of each family) and 65000, table inet vpnd
 *   lower   all of it away
 *   nft     another transaction of its own
 *   facts   links and LAN routes as host/links.ts sees them
 *   lan POLICY      brings table 65000 in line; POLICY: private, off, or prefixes with commas
 *   strict on|off   src_valid_mark where the reverse path filter is on; `strict sweep` as at start
 *
 * With the argument `worker` all of it happens on another thread.
 */
import { tmpdir } from 'node:os';
import { createInterface } from 'node:readline';
import { isMainThread, Worker } from 'node:worker_threads';
import { HostWatch } from '../../../src/host/host-watch.js';
import { type LanPolicy, lanChanges, lanRoutes } from '../../../src/host/lan.js';
import { type LanRoute, readLinkFacts } from '../../../src/host/links.js';
import { LAN_TABLE, LINK_GROUP, NFT_TABLE, ROUTE_PROTOCOL } from '../../../src/host/numbers.js';
import { Sysctls } from '../../../src/host/sysctl.js';
import { SysctlRecord } from '../../../src/host/sysctl-record.js';
import { Epoll } from '../../../src/kernel/epoll.js';
import { libc } from '../../../src/kernel/ffi.js';
import { type NetlinkRequest, NetlinkSocket } from '../../../src/kernel/netlink-socket.js';
import { Nftables } from '../../../src/kernel/nftables.js';
import {
  addAddress,
  addRoute,
  addRule,
  configureLink,
  deleteLink,
  deleteRoute,
  deleteRule,
  type RouteSettings,
  type RuleSettings,
  setLinkUp,
} from '../../../src/kernel/rtnetlink.js';
import { netnsCookie } from '../../../src/kernel/socket-options.js';
import { openTun, type Tun } from '../../../src/kernel/tun.js';
import { unixAddress, unixSocket } from '../../../src/kernel/unix-socket.js';
import { FAMILIES, type Family, IPV4, IPV6 } from '../../../src/model/vpn-types.js';

export const PRIORITY = 13100;
export const TABLE = 50002;
const NFT = `add table inet ${NFT_TABLE}; add chain inet ${NFT_TABLE} lock; add rule inet ${NFT_TABLE} lock accept`;

if (isMainThread && process.argv[2] === 'worker') {
  const worker = new Worker(new URL(import.meta.url), { stdin: true, trackUnmanagedFds: false });
  if (worker.stdin) process.stdin.pipe(worker.stdin);
} else if (process.argv[1]?.endsWith('host-watcher.js')) await watch();

async function watch(): Promise<void> {
  const listener = unixSocket();
  const address = unixAddress(`\0host-watcher-${process.pid}`);
  libc.bind(listener, address, address.length);
  libc.listen(listener, 1);
  const epoll = new Epoll(listener, () => undefined);
  const [netlink, deleter, nft] = [new NetlinkSocket(), new NetlinkSocket(), new Nftables()];
  let live: Tun | undefined;
  const say = (what: object): void => void process.stdout.write(`${JSON.stringify(what)}\n`);
  const host = new HostWatch(epoll, {
    ownPorts: [netlink.portId, deleter.portId],
    liveLink: (ifindex) => (live?.ifindex === ifindex ? live.name : undefined),
    onForeignChange: (changes) => {
      for (const { what } of changes) say({ foreign: what });
    },
    onLinks: () => say({ links: true }),
  });

  const send = async (socket: NetlinkSocket, requests: NetlinkRequest[]): Promise<void> => {
    const [failure] = await socket.batch(requests);
    if (failure) throw failure.error;
  };
  const sysctls = new Sysctls(
    new SysctlRecord(process.env.STATE_DIRECTORY ?? tmpdir(), netnsCookie(listener)),
    (what) => say({ foreign: what }),
  );
  const work: Record<string, (argument: string) => Promise<unknown>> = {
    raise: async () => {
      const tun = openTun('vpn-tun0');
      await send(netlink, [
        configureLink({ ...tun, mtu: 1500, group: LINK_GROUP, ipv4: [] }),
        addAddress({ family: IPV4, address: '10.8.0.2', prefixLength: 32, ifindex: tun.ifindex, dev: tun.name }),
        addAddress({ family: IPV6, address: 'fd08::2', prefixLength: 128, ifindex: tun.ifindex, dev: tun.name }),
        setLinkUp(tun),
        ...routes(tun).map((route) => addRoute(route, route.dev === undefined ? undefined : tun.ifindex)),
        ...rules().map(addRule),
      ]);
      nft.run(NFT);
      live = tun;
    },
    lower: async () => {
      const tun = live;
      live = undefined;
      if (!tun) return;
      libc.close(tun.fd);
      await deleter.batch([deleteLink(tun)]);
      const own = routes(tun).filter((route) => route.dev === undefined);
      await netlink.batch([...rules().map(deleteRule), ...own.map((route) => deleteRoute(route))]);
      nft.run(`add table inet ${NFT_TABLE}; delete table inet ${NFT_TABLE}`);
    },
    nft: async () => nft.run(NFT),
    facts: async () => say({ facts: await readLinkFacts(netlink) }),
    lan: async (argument) => {
      const { onLink, lan } = await readLinkFacts(netlink);
      const { add, remove } = lanChanges(lan, lanRoutes(onLink, policyOf(argument)));
      const settings = (route: LanRoute): RouteSettings => ({
        ...route,
        type: 'unicast',
        table: LAN_TABLE,
        protocol: ROUTE_PROTOCOL,
      });
      await send(netlink, [
        ...remove.map((route) => deleteRoute(settings(route), route.ifindex)),
        ...add.map((route) => addRoute(settings(route), route.ifindex)),
      ]);
      say({ added: add.length, removed: remove.length });
    },
    strict: async (argument) => {
      const { links } = await readLinkFacts(netlink);
      if (argument === 'sweep') say({ swept: sysctls.sweep(links) });
      else say({ raised: sysctls.update(links, argument === 'on') });
    },
  };
  say({ done: 'start' });
  for await (const line of createInterface({ input: process.stdin })) {
    const [word = '', argument = ''] = line.split(' ');
    await work[word]?.(argument);
    say({ done: line });
  }
  host.close();
  sysctls.close();
  await epoll.stop();
}

function policyOf(argument: string): LanPolicy {
  if (argument === 'private' || argument === 'off') return argument;
  return argument.split(',').map((prefix) => {
    const [address = '', length] = prefix.split('/');
    return { address, prefixLength: Number(length) };
  });
}

function rules(): RuleSettings[] {
  return FAMILIES.map((family) => ({ family, priority: PRIORITY, action: 'lookup', table: TABLE }));
}

/** One through the vNIC in each family, 1,000 without a device, and a copy for the LAN that has none either. */
function routes(tun: Tun): RouteSettings[] {
  const common = { table: TABLE, protocol: ROUTE_PROTOCOL, metric: 1 };
  const destination = (family: Family, index: number): { destination: string; prefixLength: number } =>
    family === IPV6
      ? { destination: `2001:db8:${index.toString(16)}::`, prefixLength: 48 }
      : { destination: `100.${index >> 8}.${index & 255}.0`, prefixLength: 24 };
  return FAMILIES.flatMap((family): RouteSettings[] => [
    { ...common, type: 'unicast', family, ...destination(family, 9999), dev: tun.name },
    { ...common, type: 'unreachable', family, ...destination(family, 9998), table: LAN_TABLE },
    ...Array.from({ length: 1000 }, (_, index): RouteSettings => {
      return { ...common, type: 'unreachable', family, ...destination(family, index + 1) };
    }),
  ]);
}
