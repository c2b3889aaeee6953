/** This tunnel against a real wireguard-go, two hosts with a cable between them: see lib/wireguard-lab.ts for the picture. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { PeerStatus } from '../../src/tunnel/wireguard/device-config.js';
import { ALL_ARRIVED, sendSegments } from './lib/datagrams.js';
import { receiveTransfers, transfer } from './lib/transfer.js';
import { INSIDE, OUTSIDE } from './lib/two-hosts.js';
import { requirePeers } from './lib/unpacked-peers.js';
import { eventually } from './lib/vpn-lab.js';
import type { WireGuardPeerDump } from './lib/wireguard-go.js';
import {
  captureMessages,
  described,
  type Pair,
  pingSizes,
  startPair,
  type WireGuardMessage,
  withoutRepeats,
} from './lib/wireguard-lab.js';

const MEGABYTE = 1 << 20;
/** Around the padding to 16, the largest that fits into one packet of 1420, and two that become fragments. */
const SIZES = [0, 1, 7, 8, 9, 20, 21, 100, 1371, 1372, 1373, 4000];

async function ourPeer({ ours }: Pair): Promise<PeerStatus> {
  const [peer] = (await ours.status()).peers;
  assert.ok(peer);
  return peer;
}

async function theirPeer({ theirs }: Pair): Promise<WireGuardPeerDump> {
  const [peer] = (await theirs.show()).peers;
  assert.ok(peer);
  return peer;
}

function bytesFrom(messages: readonly WireGuardMessage[], who: 'ours' | 'theirs'): number {
  return messages.filter(({ from }) => from === who).reduce((sum, { size }) => sum + size, 0);
}

for (const initiator of ['ours', 'theirs'] as const) {
  for (const outside of ['IPv4', 'IPv6'] as const) {
    for (const presharedKey of ['same', undefined] as const) {
      const who = initiator === 'ours' ? 'This tunnel begins' : 'wireguard-go begins';
      const name = `${who} over ${outside}${presharedKey ? ' with a preshared key' : ''}: both families inside, WireGuard only outside, equal counters`;
      test(name, async (t) => {
        if (!requirePeers(t)) return;
        const pair = await startPair(t, { initiator, outside, ...(presharedKey && { presharedKey }) });
        const capture = await captureMessages(pair);
        const [sender, side] = initiator === 'ours' ? ([pair.here, 'there'] as const) : ([pair.there, 'here'] as const);
        const [receiver, back] =
          initiator === 'ours' ? ([pair.there, 'here'] as const) : ([pair.here, 'there'] as const);
        await pingSizes(sender, INSIDE.IPv4[side], SIZES);
        await pingSizes(receiver, INSIDE.IPv6[back], SIZES);
        await pingSizes(sender, INSIDE.IPv6[side], [56]);
        await pingSizes(receiver, INSIDE.IPv4[back], [56]);
        // Keepalives come 10 s later, a repeated handshake 5 s.
        const { messages, our, their } = await eventually('equal counters', async () => {
          const messages = await capture.peek();
          const [our, their] = [await ourPeer(pair), await theirPeer(pair)];
          const counted = [our.receivedBytes, our.sentBytes, their.receivedBytes, their.sentBytes];
          const [sent, received] = [bytesFrom(messages, 'ours'), bytesFrom(messages, 'theirs')];
          const isSame = [received, sent, sent, received].every((bytes, index) => bytes === counted[index]);
          return isSame ? { messages, our, their } : undefined;
        });
        await capture.stop();

        const responder = initiator === 'ours' ? 'theirs' : 'ours';
        assert.deepEqual(described(messages).slice(0, 3), [`${initiator} 1`, `${responder} 2`, `${initiator} 4`]);
        const handshakes = messages.filter(({ type }) => type !== 4);
        const wanted = initiator === 'theirs' ? withoutRepeats(handshakes) : handshakes;
        assert.deepEqual(described(wanted), [`${initiator} 1`, `${responder} 2`], 'one handshake, then data');
        assert.deepEqual(
          messages.slice(0, 2).map(({ size }) => size),
          [148, 92],
        );
        for (const { type, size, family, payload } of messages) {
          assert.equal(family, outside === 'IPv4' ? 1 : 2);
          // Padded, but not beyond the MTU of 1420.
          if (type === 4) assert.ok(size % 16 === 0 || size === 1452, `a data message of ${size} bytes`);
          assert.equal(Buffer.from(payload).includes('c0ffeec0ffee', 0, 'hex'), false, 'what was sent is not seen');
        }
        assert.equal(our.hasPresharedKey, presharedKey !== undefined);
        assert.equal(their.presharedKey !== undefined, presharedKey !== undefined);
        assert.equal(our.endpoint?.address, OUTSIDE[outside].there);
        assert.ok(Math.abs(our.lastHandshakeMs / 1000 - their.latestHandshake) <= 10, 'the same handshake');
      });
    }
  }
}

for (const initiator of ['ours', 'theirs'] as const) {
  test(`Different preshared keys, ${initiator === 'ours' ? 'this tunnel' : 'wireguard-go'} begins: no session, nothing gets through`, async (t) => {
    if (!requirePeers(t)) return;
    const pair = await startPair(t, { initiator, presharedKey: 'different' });
    const capture = await captureMessages(pair);
    const [sender, target] =
      initiator === 'ours' ? [pair.here, INSIDE.IPv4.there] : ([pair.there, INSIDE.IPv4.here] as const);
    const { status } = await sender.run('ping', ['-n', '-c2', '-i0.2', '-W1', target], { check: false });
    await eventually('there was a response', async () => {
      const { counters } = await pair.ours.status();
      return (counters[initiator === 'ours' ? 'badResponse' : 'responsesSent'] ?? 0) > 0 || undefined;
    });
    const messages = await capture.stop();
    assert.equal(status, 1);
    const responder = initiator === 'ours' ? 'theirs' : 'ours';
    assert.deepEqual(described(messages).slice(0, 2), [`${initiator} 1`, `${responder} 2`]);
    assert.equal(messages.filter(({ type }) => type === 4).length, 0);
    // Who begins cannot read the answer, and so has no session.
    if (initiator === 'ours') assert.equal((await ourPeer(pair)).lastHandshakeMs, 0);
    else assert.equal((await theirPeer(pair)).latestHandshake, 0);
  });
}

for (const offload of [true, false]) {
  test(`${offload ? 'With' : 'Without'} segmentation offload large transfers arrive unchanged, both ways, both families, both at once`, async (t) => {
    if (!requirePeers(t)) return;
    const pair = await startPair(t, { offload });
    const { here, there } = pair;
    const ends = [
      [here, 'here', there],
      [there, 'there', here],
    ] as const;
    for (const [host, side] of ends) {
      await receiveTransfers(host, INSIDE.IPv4[side]);
      await receiveTransfers(host, INSIDE.IPv6[side]);
    }
    // Only this tunnel knows where the other is.
    await pingSizes(here, INSIDE.IPv4.there, [56]);
    const bytes = 100 * MEGABYTE + 4321;
    for (const [, side, sender] of ends) {
      await transfer(sender, INSIDE.IPv4[side], bytes);
      await transfer(sender, INSIDE.IPv6[side], bytes);
    }
    await Promise.all(ends.map(([, side, sender]) => transfer(sender, INSIDE.IPv4[side], bytes)));

    // The last acknowledgements are on their way when a transfer ends.
    await eventually('both have counted the same', async () => {
      const [our, their] = [await ourPeer(pair), await theirPeer(pair)];
      return (our.receivedBytes === their.sentBytes && our.sentBytes === their.receivedBytes) || undefined;
    });
    assert.ok((await ourPeer(pair)).sentBytes > 3 * bytes);
    const { counters } = await pair.ours.status();
    assert.deepEqual(
      { unauthentic: counters.unauthentic, replayed: counters.replayed },
      { unauthentic: 0, replayed: 0 },
    );
    for (const host of [here, there]) {
      const { stdout } = await host.run('sh', ['-c', 'grep -E "^(Tcp|Udp):" /proc/net/snmp; cat /proc/net/snmp6']);
      assert.doesNotMatch(stdout, /InCsumErrors\s+[1-9]/);
      assert.equal(checksumErrors(stdout), 0, 'the kernel found no wrong checksum');
    }
  });
}

/** /proc/net/snmp has a line of names and a line of figures for each protocol. */
function checksumErrors(snmp: string): number {
  const lines = snmp.split('\n').map((line) => line.split(/\s+/));
  return lines
    .map((names, index) =>
      Number(names.includes('InCsumErrors') ? lines[index + 1]?.[names.indexOf('InCsumErrors')] : 0),
    )
    .filter((figure) => !Number.isNaN(figure))
    .reduce((sum, figure) => sum + figure, 0);
}

const SEGMENTS = { segmentBytes: 1300, count: 40, sends: 20 };

for (const family of ['IPv4', 'IPv6'] as const) {
  test(`UDP sent in segments over ${family} arrives as single datagrams, both ways`, async (t) => {
    if (!requirePeers(t)) return;
    const pair = await startPair(t);
    await pingSizes(pair.here, INSIDE[family].there, [56]);
    for (const [sender, receiver, side] of [
      [pair.here, pair.there, 'there'],
      [pair.there, pair.here, 'here'],
    ] as const) {
      assert.deepEqual(await sendSegments(sender, receiver, INSIDE[family][side], SEGMENTS), ALL_ARRIVED);
    }
  });
}

test('wireguard-go moves to another port and another address, then this tunnel does: each is followed, both ways', async (t) => {
  if (!requirePeers(t)) return;
  const pair = await startPair(t);
  const { here, there, ours, theirs } = pair;
  const echo = (from: 'here' | 'there') =>
    from === 'here' ? pingSizes(here, INSIDE.IPv4.there, [56]) : pingSizes(there, INSIDE.IPv4.here, [56]);
  await echo('here');
  assert.equal((await theirPeer(pair)).endpoint, `192.0.2.1:${ours.listenPort}`);

  await theirs.set('listen-port', '6001');
  await echo('there');
  assert.deepEqual((await ourPeer(pair)).endpoint, { address: '192.0.2.2', port: 6001 });
  await echo('here');

  await there.ip('address del 192.0.2.2/24 dev eth0', 'address add 192.0.2.22/24 dev eth0');
  await echo('there');
  assert.deepEqual((await ourPeer(pair)).endpoint, { address: '192.0.2.22', port: 6001 });
  await echo('here');

  await ours.move(6002);
  await echo('here');
  assert.equal((await theirPeer(pair)).endpoint, '192.0.2.1:6002');
  await echo('there');

  await here.ip('address del 192.0.2.1/24 dev eth0', 'address add 192.0.2.11/24 dev eth0');
  const capture = await here.capture('eth0', ['udp']);
  await echo('here');
  assert.equal((await theirPeer(pair)).endpoint, '192.0.2.11:6002');
  await echo('there');
  const ways = (await capture.stop()).map((packet) => {
    return `${packet.source}:${packet.sourcePort} ${packet.destination}:${packet.destinationPort} ${packet.payload[0]}`;
  });
  const [out, back] = ['192.0.2.11:6002 192.0.2.22:6001 4', '192.0.2.22:6001 192.0.2.11:6002 4'];
  assert.deepEqual(ways, [out, back, back, out], 'one session all the way: no handshake');
});

test('wireguard-go comes over the other family: this tunnel answers there', async (t) => {
  if (!requirePeers(t)) return;
  const pair = await startPair(t);
  await pingSizes(pair.here, INSIDE.IPv4.there, [56]);
  const { here } = OUTSIDE.IPv6;
  await pair.theirs.set('peer', pair.ours.publicKey, 'endpoint', `[${here}]:${pair.ours.listenPort}`);
  const capture = await captureMessages(pair);
  // wireguard-go loses a few of its own when the family of an endpoint changes: one that gets through is enough.
  const several = ['-n', '-c10', '-i0.1', '-W5'];
  await pair.there.run('ping', [...several, INSIDE.IPv4.here]);
  assert.equal((await ourPeer(pair)).endpoint?.address, OUTSIDE.IPv6.there);
  await pair.here.run('ping', [...several, INSIDE.IPv4.there]);
  const messages = await capture.stop();
  assert.ok(messages.length >= 12, `${messages.length} messages`);
  assert.deepEqual(new Set(messages.map(({ family }) => family)), new Set([2]));
});

test('what a stranger sends again or changes from another place moves nobody, and what was sent again is not delivered', async (t) => {
  if (!requirePeers(t)) return;
  const pair = await startPair(t);
  const { here, there, ours } = pair;
  await pingSizes(there, INSIDE.IPv4.here, []);
  await pingSizes(here, INSIDE.IPv4.there, [56]);
  const capture = await captureMessages(pair);
  await pingSizes(there, INSIDE.IPv4.here, [56]);
  const messages = await capture.stop();
  const data = messages.find(({ type, from }) => type === 4 && from === 'theirs');
  assert.ok(data);
  const before = await ours.status();
  const inside = await here.capture('wg0', ['icmp']);
  const changed = Uint8Array.from(data.payload);
  // A counter that is still to come: it is not the replay window that refuses it.
  changed[9] = 1;
  for (const payload of [data.payload, changed]) {
    const send = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 9999))
s.sendto(bytes.fromhex(sys.argv[1]), ('192.0.2.1', ${ours.listenPort}))`;
    await there.run('python3', ['-c', send, Buffer.from(payload).toString('hex')]);
  }
  const after = await eventually('both are counted', async () => {
    const status = await ours.status();
    return status.counters.unauthentic === 1 && status.counters.replayed === 1 ? status : undefined;
  });
  assert.deepEqual(after.peers[0]?.endpoint, before.peers[0]?.endpoint);
  assert.deepEqual((await inside.stop()).length, 0);
  await pingSizes(here, INSIDE.IPv4.there, [56]);
});

test('persistent keepalives of this tunnel keep their interval', async (t) => {
  if (!requirePeers(t)) return;
  const pair = await startPair(t);
  const capture = await captureMessages(pair);
  const publicKey = new Uint8Array(Buffer.from(pair.theirs.publicKey, 'base64'));
  await pair.ours.configure({ peers: [{ publicKey, persistentKeepaliveSeconds: 1 }] });
  const [initiation, keepalive] = [148, 32];
  await eventually('four keepalives', async () => {
    return (await ourPeer(pair)).sentBytes >= initiation + 4 * keepalive || undefined;
  });
  const messages = await capture.stop();
  assert.deepEqual(described(messages).slice(0, 3), ['ours 1', 'theirs 2', 'ours 4']);
  const keepalives = messages.slice(2);
  assert.deepEqual(
    keepalives.map(({ from, size }) => `${from} ${size}`),
    keepalives.map(() => 'ours 32'),
  );
  const gaps = keepalives.slice(1).map(({ timeMs }, index) => timeMs - (keepalives[index]?.timeMs ?? 0));
  assert.ok(gaps.length >= 3, `keepalives after ${gaps.map(Math.round)} ms`);
  for (const gap of gaps.slice(1)) assert.ok(gap > 900 && gap < 8000, `after ${gap} ms`);
});

test('persistent keepalives of wireguard-go are taken and answered with nothing', async (t) => {
  if (!requirePeers(t)) return;
  const pair = await startPair(t, { initiator: 'theirs', persistentKeepalive: 1 });
  const capture = await captureMessages(pair);
  const keepalives = await eventually('three keepalives', async () => {
    const { counters } = await pair.ours.status();
    return (counters.keepalives ?? 0) >= 3 ? counters.keepalives : undefined;
  });
  assert.ok(keepalives);
  const messages = await capture.stop();
  assert.deepEqual(
    described(messages).filter((each) => each.startsWith('ours') && each !== 'ours 2'),
    [],
  );
  // A repeated handshake (withoutRepeats) has a response, too.
  const { receivedBytes } = await theirPeer(pair);
  assert.ok(receivedBytes > 0 && receivedBytes % 92 === 0, `responses only: ${receivedBytes} bytes`);
});

/** What passes while wireguard-go sends two packets that nothing answers, and a while after. */
async function unanswered(t: TestContext): Promise<WireGuardMessage[]> {
  const pair = await startPair(t, { initiator: 'theirs' });
  await pair.here.sysctl('net.ipv4.icmp_echo_ignore_all=1');
  const capture = await captureMessages(pair);
  await pair.there.run('ping', ['-n', '-c2', '-i0.2', '-W1', INSIDE.IPv4.here], { check: false });
  await new Promise((resolve) => setTimeout(resolve, 12_500));
  await eventually('more than a response', async () => (await ourPeer(pair)).sentBytes > 92 || undefined);
  return capture.stop();
}

test('data that nothing answers is answered with one keepalive after 10 s', async (t) => {
  if (!requirePeers(t)) return;
  let messages = await unanswered(t);
  // A busy machine makes wireguard-go repeat its handshake (wireguard-rekey.test.ts), which is something that we answer.
  for (let tries = 1; tries < 4 && messages.filter(({ type }) => type === 1).length > 1; tries++) {
    messages = await unanswered(t);
  }
  assert.deepEqual(described(messages), ['theirs 1', 'ours 2', 'theirs 4', 'theirs 4', 'ours 4']);
  const [, , first, , answer] = messages;
  assert.equal(answer?.size, 32);
  const waited = (answer?.timeMs ?? 0) - (first?.timeMs ?? 0);
  assert.ok(waited > 9900 && waited < 20_000, `after ${waited} ms`);
});
