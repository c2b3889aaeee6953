/**
 * A tunnel between this tunnel (here) and wireguard-go (there), as in lib/wireguard-lab.ts, and a host that floods either:
 *
 *   here eth0 ─────────────── eth0 there
 *   203.0.113.1 eth1          eth1 203.0.113.5
 *               └── attacker ──┘    sends from 198.18.0.0/24
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { iperf, startIperf } from './lib/iperf3.js';
import { kernelCounters } from './lib/plain-tunnel.js';
import { INSIDE } from './lib/two-hosts.js';
import { requirePeers } from './lib/unpacked-peers.js';
import { eventually } from './lib/vpn-lab.js';
import { type Flood, type FloodOptions, startAttacker } from './lib/wireguard-attacker.js';
import {
  captureMessages,
  described,
  type Pair,
  PORTS,
  pingSizes,
  startPair,
  type WireGuardMessage,
} from './lib/wireguard-lab.js';

const HERE = '203.0.113.1';
const THERE = '203.0.113.5';
const MEGABYTE = 1 << 20;

function hasMac2({ payload, size }: WireGuardMessage): boolean {
  return payload.subarray(size - 16, size).some((byte) => byte !== 0);
}

function residentBytes({ ours }: Pair): number {
  const status = readFileSync(`/proc/${ours.process.pid}/status`, 'latin1');
  return Number(/^VmRSS:\s*(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

/** Data of a session as it was on the wire, to be sent again. */
async function recorded(pair: Pair): Promise<Uint8Array[]> {
  const capture = await captureMessages(pair);
  await pingSizes(
    pair.there,
    INSIDE.IPv4.here,
    Array.from({ length: 20 }, () => 1000),
  );
  const messages = await capture.stop();
  for (const host of [pair.here, pair.there]) await host.ip('link set eth0 gso_max_segs 65535');
  return messages.filter(({ from, type }) => from === 'theirs' && type === 4).map(({ payload }) => payload);
}

const COUNT = 100_000;
const ROUNDS = 3;
const ROUND_SECONDS = 2;

for (const kind of ['initiation', 'garbage', 'replay'] as const) {
  const what = {
    initiation: 'initiations with a right mac1',
    garbage: 'datagrams of garbage',
    replay: 'replayed data',
  };
  test(`a flood of ${COUNT} ${what[kind]} leaves an established session and memory as they were`, async (t) => {
    if (!requirePeers(t)) return;
    const pair = await startPair(t, { presharedKey: 'same' });
    const attacker = await startAttacker(pair.lab, pair.here, pair.there);
    await startIperf(pair.here, INSIDE.IPv4.here);
    await pingSizes(pair.here, INSIDE.IPv4.there, [56]);
    const flood: Flood =
      kind === 'initiation'
        ? { kind, publicKey: pair.ours.publicKey }
        : kind === 'garbage'
          ? { kind }
          : { kind, messages: await recorded(pair) };
    const options: FloodOptions = {
      address: HERE,
      port: PORTS.here,
      count: Math.ceil(COUNT / ROUNDS),
      perSecond: Math.ceil(COUNT / ROUNDS / ROUND_SECONDS),
    };
    const measure = async () => (await iperf(pair.there, INSIDE.IPv4.here, { seconds: ROUND_SECONDS })).bitsPerSecond;
    await measure();
    const resident = residentBytes(pair);
    const ratios: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const quiet = await measure();
      const { sent } = await attacker.flood(flood, options);
      ratios.push((await measure()) / quiet);
      await sent;
    }
    t.diagnostic(`speed beside the flood: ${ratios.map((ratio) => ratio.toFixed(2)).join(', ')} of that without`);
    assert.ok(residentBytes(pair) - resident < 20 * MEGABYTE, 'resident memory has grown');
    const { counters, peers } = await pair.ours.status();
    const refused =
      kind === 'initiation'
        ? (counters.badInitiation ?? 0) + (counters.overload ?? 0) + (counters.cookiesSent ?? 0)
        : kind === 'garbage'
          ? (counters.malformed ?? 0) + (counters.noSession ?? 0) + (counters.badMac ?? 0) + (counters.overload ?? 0)
          : (counters.replayed ?? 0) + (counters.unauthentic ?? 0);
    // A busy machine drops most of it before the tunnel sees it.
    assert.ok(refused > COUNT / 50, `some of it has come: ${JSON.stringify(counters)}`);
    assert.equal(peers[0]?.endpoint?.address, '192.0.2.2');
    await pingSizes(pair.there, INSIDE.IPv4.here, [56]);
  });
}

/** Enough that all Diffie-Hellman there is goes to strangers; little enough that everybody gets a cookie. */
const LOAD_SECONDS = 60;
const PATIENT = { timeoutMs: 40_000 };

/** Without initiations that were lost in the flood, which are followed by the next. */
function heeded(messages: readonly WireGuardMessage[]): WireGuardMessage[] {
  return messages.filter(({ type }, index) => type !== 1 || messages[index + 1]?.type !== 1);
}

test('while strangers flood this tunnel a wireguard-go gets a cookie, shows it, and has its session', async (t) => {
  if (!requirePeers(t)) return;
  const pair = await startPair(t, { initiator: 'theirs', presharedKey: 'same' });
  const attacker = await startAttacker(pair.lab, pair.here, pair.there);
  const perSecond = 700;
  const load = { address: HERE, port: PORTS.here, count: LOAD_SECONDS * perSecond, perSecond, burst: 1 };
  await attacker.flood({ kind: 'initiation', publicKey: pair.ours.publicKey }, load);
  await eventually('strangers get cookies', async () => {
    const { counters } = await pair.ours.status();
    return (counters.cookiesSent ?? 0) > 0 || undefined;
  });
  const capture = await captureMessages(pair);
  await pair.there.run('ping', ['-n', '-c1', '-W30', INSIDE.IPv4.here], PATIENT);
  const messages = heeded(await capture.stop()).slice(0, 5);
  assert.deepEqual(described(messages), ['theirs 1', 'ours 3', 'theirs 1', 'ours 2', 'theirs 4']);
  assert.deepEqual(
    messages.filter(({ type }) => type === 1).map((message) => hasMac2(message)),
    [false, true],
  );
});

test('while strangers flood a wireguard-go this tunnel gets a cookie, shows it, and has its session', async (t) => {
  if (!requirePeers(t)) return;
  const pair = await startPair(t, { initiator: 'ours', presharedKey: 'same' });
  const attacker = await startAttacker(pair.lab, pair.here, pair.there);
  // wireguard-go wants cookies for a second after 128 handshakes waited at once.
  const perSecond = 2000;
  const load = { address: THERE, port: PORTS.there, count: LOAD_SECONDS * perSecond, perSecond, burst: 1000 };
  await attacker.flood({ kind: 'initiation', publicKey: pair.theirs.publicKey }, load);
  // Nothing else is sent there yet.
  const sent = async () => (await kernelCounters(pair.there)).UdpOutDatagrams ?? 0;
  await eventually('strangers get cookies', async () => (await sent()) > 0 || undefined);
  const capture = await captureMessages(pair);
  await pair.here.run('ping', ['-n', '-c1', '-W30', INSIDE.IPv4.there], PATIENT);
  const messages = heeded(await capture.stop()).slice(0, 5);
  assert.deepEqual(described(messages), ['ours 1', 'theirs 3', 'ours 1', 'theirs 2', 'ours 4']);
  assert.deepEqual(
    messages.filter(({ type }) => type === 1).map((message) => hasMac2(message)),
    [false, true],
  );
});
