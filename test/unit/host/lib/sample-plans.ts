/** VPNs of every shape, each with the input of its plan: for the golden texts and for comparing them with a kernel. */
import type { AppSelector } from '../../../../src/host/applications.js';
import { outsideServers } from '../../../../src/host/dns-servers.js';
import { LAST_UID, slotNumbers } from '../../../../src/host/numbers.js';
import { type Plan, type PlanInput, planVpn, selectionsNeeded } from '../../../../src/host/plan.js';
import { bucketsOf, Sections } from '../../../../src/host/sections.js';
import { Selections } from '../../../../src/host/selections.js';
import { parseVpnConfig } from '../../../../src/model/vpn-config.js';
import { checkVpnConfig } from '../../../../src/model/vpn-config-check.js';
import type { LinkAddress, RouteInfo, VpnConfig } from '../../../../src/model/vpn-types.js';

export interface SamplePlan {
  /** The golden file's name. */
  name: string;
  slot: number;
  owner: number;
  config: VpnConfig;
  offload?: boolean;
  trusted?: AppSelector[];
  blocked?: AppSelector[];
}

const prefix = (text: string): LinkAddress => {
  const [address = '', length] = text.split('/');
  return { address: { address }, prefixLength: Number(length) };
};
const route = (text: string, more: Partial<RouteInfo> = {}): RouteInfo => ({
  destination: prefix(text),
  gateway: { address: '' },
  ...more,
});
const excluded = { isExcludedRoute: true };

export const SAMPLES: readonly SamplePlan[] = [
  { name: 'root-everything', slot: 0, owner: 0, config: { addresses: [prefix('10.0.0.5/24')] } },
  { name: 'user-ipv4', slot: 1, owner: 2001, config: { addresses: [prefix('10.1.0.5/32')], mtu: 1400 } },
  {
    name: 'user-dual-stack-dns',
    slot: 2,
    owner: 2002,
    config: {
      addresses: [prefix('10.2.0.5/24'), prefix('fd02::5/64')],
      dnsAddresses: ['10.2.0.53', 'fd02::53', '9.9.9.9'],
    },
  },
  {
    name: 'split-routes-gateway',
    slot: 3,
    owner: 2003,
    offload: true,
    config: {
      addresses: [prefix('10.3.0.5/24'), prefix('fd03::5/64')],
      routes: [
        route('172.16.0.0/12', { gateway: { address: '10.3.0.1' } }),
        route('192.0.2.7/32'),
        route('2001:db8::/32', { gateway: { address: 'fd03::1' } }),
      ],
    },
  },
  {
    name: 'excluded-routes',
    slot: 4,
    owner: 0,
    config: {
      addresses: [prefix('10.4.0.5/24'), prefix('fd04::5/64')],
      routes: [
        route('0.0.0.0/0', { gateway: { address: '10.4.0.1' }, isDefaultRoute: true }),
        route('::/0'),
        route('192.168.0.0/16', excluded),
        route('2001:db8:7::/48', excluded),
      ],
    },
  },
  {
    name: 'root-trusted',
    slot: 5,
    owner: 0,
    config: { addresses: [prefix('10.5.0.5/24')] },
    trusted: [
      { kind: 'uid', uid: 2001 },
      { kind: 'cgroup', path: '/web' },
    ],
  },
  {
    name: 'root-blocked-dns',
    slot: 6,
    owner: 0,
    config: { addresses: [prefix('10.6.0.5/24'), prefix('fd06::5/64')], dnsAddresses: ['10.6.0.53'] },
    blocked: [
      { kind: 'uid', uid: 2001 },
      { kind: 'cgroup', path: '/web' },
    ],
  },
  {
    name: 'user-trusted-cgroup',
    slot: 1499,
    owner: 2004,
    config: { addresses: [prefix('10.7.0.5/24')], isIPv6Accepted: false },
    trusted: [{ kind: 'cgroup', path: '/web' }],
  },
  {
    name: 'dns-outside',
    slot: 7,
    owner: 2005,
    config: {
      addresses: [prefix('10.8.0.5/24'), prefix('fd08::5/64')],
      routes: [route('0.0.0.0/0'), route('192.168.1.0/24', excluded), route('2001:db8::/32')],
      dnsAddresses: ['192.168.1.53', '10.8.0.53', '2001:4860:4860::8888'],
    },
  },
];

/** Selections are given out in order, as the host does when nothing else stands. */
export function inputOf({ slot, owner, config, offload = false, trusted = [], blocked = [] }: SamplePlan): PlanInput {
  const spec = checkVpnConfig(parseVpnConfig(config), slotNumbers(slot).link);
  const needed = selectionsNeeded({ spec, trusted, blocked });
  const free = new Selections();
  const selections = Object.fromEntries(needed.map((purpose) => [purpose, free.take(owner)]));
  const sections = new Sections().acquire(bucketsOf(owner, spec, LAST_UID));
  const standing = (selectors: AppSelector[]) =>
    selectors.flatMap((each) => (each.kind === 'cgroup' ? [{ level: 1, name: `unified${each.path}` }] : []));
  const cgroups = { covered: standing(trusted), blocked: standing(blocked) };
  const outside = outsideServers(spec, []);
  const request = { slot, owner, spec, offload, trusted, blocked, lastUid: LAST_UID };
  return { ...request, selections, sections, cgroups, outsideServers: outside };
}

export function planOf(sample: SamplePlan): Plan {
  return planVpn(inputOf(sample));
}
