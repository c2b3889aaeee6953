/**
 * A server with several addresses answers from the one that its client writes to: another one would not get through the
 * client's firewall or NAT. Hosts as in lib/wireguard-lab.ts; here, where this tunnel is the server, has two more addresses.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { INSIDE, OUTSIDE } from './lib/two-hosts.js';
import { requirePeers } from './lib/unpacked-peers.js';
import { captureMessages, PORTS, pingSizes, startPair } from './lib/wireguard-lab.js';

const SECOND = { IPv4: '192.0.2.101', IPv6: '2001:db8:1::101' } as const;
const PREFIX = { IPv4: 24, IPv6: 64 } as const;

for (const outside of ['IPv4', 'IPv6'] as const) {
  test(`over ${outside} answers come from the address that was asked, and when it is gone from another`, async (t) => {
    if (!requirePeers(t)) return;
    const pair = await startPair(t, { initiator: 'theirs', outside });
    const { here, there, ours, theirs } = pair;
    // Deprecated: the kernel by itself would choose the other one, as it does with IPv4.
    await here.ip(
      `addr add ${SECOND[outside]}/${PREFIX[outside]} dev eth0${outside === 'IPv6' ? ' nodad preferred_lft 0' : ''}`,
    );
    const endpoint = outside === 'IPv6' ? `[${SECOND.IPv6}]` : SECOND.IPv4;
    await theirs.set('peer', ours.publicKey, 'endpoint', `${endpoint}:${PORTS.here}`);

    const asked = await captureMessages(pair);
    await pingSizes(there, INSIDE.IPv4.here, [56, 1000]);
    // Ours to send, and nothing to answer.
    await pingSizes(here, INSIDE.IPv4.there, [56]);
    const sources = new Set((await asked.stop()).filter(({ from }) => from === 'ours').map(({ source }) => source));
    assert.deepEqual([...sources], [SECOND[outside]]);

    await here.ip(`addr del ${SECOND[outside]}/${PREFIX[outside]} dev eth0`);
    const gone = await captureMessages(pair);
    await pingSizes(here, INSIDE.IPv4.there, [56]);
    const others = new Set((await gone.stop()).filter(({ from }) => from === 'ours').map(({ source }) => source));
    assert.deepEqual([...others], [OUTSIDE[outside].here]);
  });
}
