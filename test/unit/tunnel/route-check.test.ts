/** Which links `vpnctl up` calls tunnels that are in the way. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isTunnelKind } from '../../../src/tunnel/route-check.js';

test('a tunnel is one whose packets go on inside of others, and not the way out of a machine', () => {
  for (const kind of ['tun', 'wireguard', 'amneziawg', 'ovpn', 'ovpn-dco', 'vti6', 'xfrm', 'sit'])
    assert.equal(isTunnelKind(kind), true, kind);
  for (const kind of ['', 'ppp', 'bond', 'bridge', 'vlan', 'veth', 'wwan', 'macvlan'])
    assert.equal(isTunnelKind(kind), false, kind);
});
