/** By which way a VPN's DNS servers are reached, and whom the policy refuses them. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { type OutsideServer, outsideServers, requirePolicy } from '../../../src/host/dns-servers.js';
import { DEFAULT_HOST_POLICY, type HostPolicy } from '../../../src/host/host-policy.js';
import type { Prefix } from '../../../src/model/address.js';
import { BusinessError } from '../../../src/model/errors.js';
import { parseVpnConfig } from '../../../src/model/vpn-config.js';
import { checkVpnConfig } from '../../../src/model/vpn-config-check.js';
import type { VpnSpec } from '../../../src/model/vpn-spec.js';
import type { RouteInfo, VpnConfig } from '../../../src/model/vpn-types.js';

const prefix = (text: string): Prefix => {
  const [address = '', length] = text.split('/');
  return { address, prefixLength: Number(length) };
};
const LAN = ['192.168.1.0/24', 'fd50::/64'].map(prefix);

function route(text: string, isExcludedRoute = false): RouteInfo {
  const { address, prefixLength } = prefix(text);
  return {
    destination: { address: { address, family: address.includes(':') ? 2 : 1 }, prefixLength },
    gateway: { address: '' },
    isExcludedRoute,
  };
}

function specOf(servers: string[], routes: RouteInfo[] = [], more: Partial<VpnConfig> = {}): VpnSpec {
  const addresses = ['10.8.0.2/24', 'fd08::2/64'].map((text) => route(text).destination);
  const config = { addresses, dnsAddresses: servers, ...(routes.length > 0 && { routes }), ...more };
  return checkVpnConfig(parseVpnConfig(config), 'vpn-tun0');
}

const ways = (spec: VpnSpec): Record<string, OutsideServer['way']> =>
  Object.fromEntries(outsideServers(spec, LAN).map(({ address, way }) => [address, way]));

test('with a default route everything is inside but local networks and what is excluded', () => {
  const servers = ['9.9.9.9', '10.8.0.1', '192.168.1.53', '192.168.2.53', '2620:fe::9', 'fd08::1', 'fd50::53'];
  assert.deepEqual(ways(specOf(servers)), { '192.168.1.53': 'lan', 'fd50::53': 'lan' });
  const routes = [
    route('0.0.0.0/0'),
    route('::/0'),
    route('192.168.1.53/32'),
    route('9.9.0.0/16', true),
    route('2620:fe::/48', true),
    route('2620:fe::9/128'),
  ];
  assert.deepEqual(ways(specOf(servers, routes)), { '9.9.9.9': 'excluded', 'fd50::53': 'lan' });
});

test('without one only what is named, or a network of the vNIC', () => {
  const servers = ['9.9.9.9', '10.8.0.1', '192.168.1.53', '2620:fe::9', 'fd08::1'];
  const routes = [route('9.0.0.0/8'), route('9.9.9.0/24', true)];
  assert.deepEqual(ways(specOf(servers, routes)), {
    '9.9.9.9': 'excluded',
    '192.168.1.53': 'uncovered',
    '2620:fe::9': 'uncovered',
  });
  const nothing = [route('0.0.0.0/0', true), route('::/0', true)];
  assert.deepEqual(ways(specOf(['9.9.9.9', '10.8.0.1'], nothing)), { '9.9.9.9': 'uncovered' });
});

test('a server of a family that the VPN does not accept is nowhere', () => {
  const addresses = [route('10.8.0.2/24').destination];
  assert.deepEqual(ways(specOf(['9.9.9.9', 'fd50::53'], [], { addresses, isIPv6Accepted: false })), {});
});

test('lockdown and "lan": "off" refuse by address, and nothing else does', () => {
  const refused = (spec: VpnSpec, policy: Partial<HostPolicy>, owner = 2001, onLink = LAN): string => {
    const lan = policy.lan === undefined ? LAN : [];
    try {
      requirePolicy({ owner, spec, outside: outsideServers(spec, lan), onLink }, { ...DEFAULT_HOST_POLICY, ...policy });
      return '';
    } catch (error) {
      assert.ok(error instanceof BusinessError);
      assert.deepEqual([error.code, (error.data as { field: string }).field], [2200001, 'config.dnsAddresses']);
      return error.message;
    }
  };
  const home = specOf(['9.9.9.9', '192.168.1.53']);
  const inside = specOf(['9.9.9.9']);
  const named = specOf(['192.168.1.53'], [route('0.0.0.0/0'), route('::/0'), route('192.168.1.53/32')]);
  const split = specOf(['192.168.1.53'], [route('198.18.0.0/15')]);
  assert.equal(refused(home, {}), '');
  assert.match(refused(home, { lan: 'off' }), /192\.168\.1\.53 .*"lan": "off"/);
  assert.match(refused(home, { lan: [] }), /192\.168\.1\.53 .*"lan": \[\]/);
  assert.match(refused(specOf(['fd50::53']), { lan: 'off' }), /fd50::53/);
  for (const spec of [inside, named, split]) assert.equal(refused(spec, { lan: 'off' }), '');
  // A public network is reached through the VPN as it is from elsewhere.
  assert.equal(refused(inside, { lan: 'off' }, 2001, [prefix('9.9.9.0/24')]), '');
  for (const [users, owner] of [
    [[2001], 2001],
    [[0], 2001],
    [[2002], 0],
  ] as const) {
    const lockdown = new Set(users);
    assert.match(refused(home, { lockdown }, owner), /192\.168\.1\.53 .*lockdown/);
    assert.match(refused(split, { lockdown }, owner), /192\.168\.1\.53 .*lockdown/);
    for (const spec of [inside, named]) assert.equal(refused(spec, { lockdown }, owner), '');
  }
  assert.equal(refused(home, { lockdown: new Set([2002]) }, 2001), '');
});
