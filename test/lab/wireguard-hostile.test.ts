/**
 * Everything that somebody who can reach the UDP port can do to a tunnel that carries traffic: see lib/hostile-lab.ts for the
 * picture. What floods cost is for bench:tunnel to say; here nothing may end, move, grow without bound, or be delivered.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { TRANSPORT_HEADER_BYTES } from '../../src/tunnel/wireguard/constants.js';
import type { WireGuardStatus } from '../../src/tunnel/wireguard-tunnel.js';
import { type Attacker, type FloodOrder, startAttacker } from './attackers/wireguard-flood.js';
import type { LabHost } from './lib/host.js';
import { FAR, type HostileLab, hostileLab, keyBytes, SECOND } from './lib/hostile-lab.js';
import { startOurTunnel } from './lib/our-tunnel.js';
import type { CapturedPacket } from './lib/pcap.js';
import { transfer } from './lib/transfer.js';
import { INSIDE } from './lib/two-hosts.js';
import { requirePeers } from './lib/unpacked-peers.js';
import { eventually } from './lib/vpn-lab.js';
import { PORTS, pingSizes } from './lib/wireguard-lab.js';

const MEGABYTE = 1 << 20;
const FLOOD = 100_000;
const PER_SECOND = 30_000;
const TRANSFER_BYTES = 20 * MEGABYTE + 4321;
/** Of resident memory: what the first flood may add, for ever, and what another one may add to that. */
const GROWTH = { first: 20 * MEGABYTE, again: 8 * MEGABYTE };
/** Of an initiation: bits of its mac2, which is not looked at as long as nobody asks for it; under load a cookie answers. */
const MAC2_BITS = 128;

function residentBytes({ ours }: HostileLab): number {
  const status = readFileSync(`/proc/${ours.process.pid}/status`, 'latin1');
  return Number(/^VmRSS:\s*(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

/** One transfer after the other into the tunnel's end and out of it until `done` settles; each has to arrive as it was sent. */
async function transferDuring<T>({ here, there }: HostileLab, done: Promise<T>): Promise<T> {
  let isDone = false;
  const end = done.finally(() => {
    isDone = true;
  });
  do {
    await transfer(there, INSIDE.IPv4.here, TRANSFER_BYTES);
    await transfer(here, INSIDE.IPv4.there, TRANSFER_BYTES);
  } while (!isDone);
  return end;
}

/** wireguard-go forgets all it had with this tunnel, and begins anew. */
async function beginAnew({ theirs, ours }: HostileLab): Promise<void> {
  await theirs.set('peer', ours.publicKey, 'remove');
  await theirs.addPeers({
    publicKey: ours.publicKey,
    endpoint: `192.0.2.1:${PORTS.here}`,
    allowedIps: [`${INSIDE.IPv4.here}/32`, `${INSIDE.IPv6.here}/128`],
  });
}

/** What wireguard-go and this tunnel say to each other on the wire: a handshake, and data both ways. */
async function recorded(lab: HostileLab): Promise<Record<'initiation' | 'response' | 'data', Uint8Array>> {
  const capture = await lab.here.capture('eth0', ['udp', 'port', String(PORTS.there)]);
  await beginAnew(lab);
  await lab.there.run('ping', ['-n', '-c3', '-i0.2', '-W9', '-s', '700', INSIDE.IPv4.here]);
  const messages = await capture.stop();
  const last = (type: number, from: string) => {
    const isOne = ({ source, payload }: CapturedPacket) =>
      source === from && payload[0] === type && payload.length > 32;
    const message = messages.findLast(isOne);
    assert.ok(message, `a message of type ${type} from ${from} was on the wire`);
    return message.payload;
  };
  return { initiation: last(1, '192.0.2.2'), response: last(2, '192.0.2.1'), data: last(4, '192.0.2.2') };
}

/** Whose session a message of data is for. */
function indexOf(data: Uint8Array): number {
  return Buffer.from(data).readUInt32LE(4);
}

/**
 * The function says how many handshakes wireguard-go may have had since: on a busy machine it repeats one (withoutRepeats in
 * lib/wireguard-lab.ts) or begins anew, at most every 5 s.
 */
async function watchHandshakes({ theirs }: HostileLab): Promise<() => Promise<number>> {
  const latest = async () => (await theirs.show()).peers[0]?.latestHandshake;
  const [first, startMs] = [await latest(), Date.now()];
  return async () => ((await latest()) === first ? 0 : Math.ceil((Date.now() - startMs) / 5000));
}

/** Where the peers of `here` are, wireguard-go first. */
async function places({ ours }: HostileLab): Promise<(string | undefined)[]> {
  return (await ours.status()).peers.map(({ endpoint }) => endpoint?.address);
}

function counted(before: WireGuardStatus, after: WireGuardStatus): Record<string, number> {
  const grown = Object.entries(after.counters).map(([name, count]) => [name, count - (before.counters[name] ?? 0)]);
  return Object.fromEntries(grown.filter(([, count]) => count !== 0));
}

async function lab(t: TestContext): Promise<HostileLab | undefined> {
  return requirePeers(t) ? hostileLab(t) : undefined;
}

test('garbage of every type and length, and every message of a session cut, spoilt and sent again, changes nothing', async (t) => {
  const hostile = await lab(t);
  if (!hostile) return;
  const { attacker, ours, here, target } = hostile;
  const { initiation, response, data } = await recorded(hostile);
  await pingSizes(hostile.there, INSIDE.IPv4.here, [56]);
  const handshakes = await watchHandshakes(hostile);
  const before = await ours.status();
  const inside = await here.capture('wg0', ['not', 'tcp']);
  const attacks: FloodOrder['attack'][] = [
    { kind: 'garbage' },
    { kind: 'spoilt', messages: [initiation, response, data] },
    { kind: 'recorded', messages: [initiation, response, data] },
  ];
  let sent = 0;
  const all = (async () => {
    for (const attack of attacks) {
      const report = await attacker.flood({ target, attack, perSecond: 8_000, from: 'here' });
      const { kind } = attack;
      assert.ok(report.answers <= (kind === 'garbage' ? 0 : MAC2_BITS), `${report.answers} answers to ${kind}`);
      sent += report.sent;
    }
  })();
  await transferDuring(hostile, all);
  // Once more without the peer's own packets, which would put right what moved.
  const wrongBits = 8 * (data.length - TRANSPORT_HEADER_BYTES);
  // A busy machine drops some before the tunnel sees them.
  await eventually('each wrong bit was found', async () => {
    for (const attack of attacks.slice(1)) await attacker.flood({ target, attack, perSecond: 4_000, from: 'here' });
    return (counted(before, await ours.status()).unauthentic ?? 0) >= wrongBits || undefined;
  });
  assert.deepEqual(await places(hostile), ['192.0.2.2', '192.0.2.2', undefined], 'what is not authentic moves nobody');
  assert.deepEqual(await inside.stop(), [], 'nothing of it is delivered');
  const after = await ours.status();
  t.diagnostic(`${sent} datagrams: ${JSON.stringify(counted(before, after))}`);
  const { replayed = 0 } = counted(before, after);
  assert.ok(replayed > 0);
  assert.ok((counted(before, after).handshakes ?? 0) <= (await handshakes()), 'the session is the one that it was');
  assert.ok(ours.process.running);
});

test(`${FLOOD} messages of each kind, and as many again: traffic goes on, memory settles, peers stay where they are`, async (t) => {
  const hostile = await lab(t);
  if (!hostile) return;
  const { attacker, ours, target, theirs } = hostile;
  const publicKey = keyBytes(ours.publicKey);
  const many = Array.from({ length: 256 }, (_, last) => `10.66.0.${last}`);
  // What stays in the heap of a program that has just begun to work is no measure.
  await transferDuring(hostile, Promise.resolve());
  type Flood = Pick<FloodOrder, 'attack' | 'from'> & { counters: string[] };
  const floodsBehind = ({ initiation, data }: Awaited<ReturnType<typeof recorded>>): Record<string, Flood> => ({
    'initiations with unknown keys': {
      attack: { kind: 'unknown keys', publicKey },
      from: 'here',
      counters: ['badInitiation', 'cookiesSent', 'overload'],
    },
    'initiations from everywhere': {
      attack: { kind: 'unknown keys', publicKey },
      from: 'anywhere',
      counters: ['badInitiation', 'cookiesSent', 'overload'],
    },
    'initiations of 256 who show cookies': {
      attack: { kind: 'unknown keys', publicKey },
      from: many,
      counters: ['badInitiation', 'cookiesSent', 'overload'],
    },
    "initiations with a peer's key, out of date": {
      attack: { kind: 'old timestamps', publicKey, privateKey: keyBytes(theirs.privateKey) },
      from: 'anywhere',
      counters: ['replayedInitiation', 'cookiesSent', 'overload'],
    },
    "a peer's initiation, sent again": {
      attack: { kind: 'recorded', messages: [initiation] },
      from: 'anywhere',
      counters: ['replayedInitiation', 'cookiesSent', 'overload'],
    },
    'initiations with a wrong mac1': { attack: { kind: 'wrong mac1' }, from: 'anywhere', counters: ['badMac'] },
    'forged cookies': {
      attack: { kind: 'forged cookies', index: undefined },
      from: 'anywhere',
      counters: ['badCookie'],
    },
    'forged cookies for a session': {
      attack: { kind: 'forged cookies', index: indexOf(data) },
      from: 'anywhere',
      counters: ['badCookie', 'overload'],
    },
    'data for a session, with wrong tags': {
      attack: { kind: 'wrong tags', index: indexOf(data) },
      from: 'anywhere',
      counters: ['unauthentic'],
    },
    'the largest datagrams': {
      attack: { kind: 'recorded', messages: [Uint8Array.from({ length: 65_507 }, (_, at) => (at === 0 ? 1 : 0))] },
      from: 'here',
      counters: ['malformed'],
    },
  });
  for (const name of Object.keys(floodsBehind(await recorded(hostile)))) {
    await t.test(name, async (t) => {
      // With a new session, so that none ends while it is flooded.
      const { attack, from, counters } = floodsBehind(await recorded(hostile))[name] as Flood;
      const isLarge = attack.kind === 'recorded' && (attack.messages[0]?.length ?? 0) > 2048;
      const [count, perSecond] = isLarge ? [FLOOD / 20, PER_SECOND / 20] : [FLOOD, PER_SECOND];
      const handshakes = await watchHandshakes(hostile);
      const before = await ours.status();
      const resident = [residentBytes(hostile)];
      for (let round = 0; round < 2; round++) {
        const { done } = await attacker.begin({ target, attack, count, perSecond, from });
        await transferDuring(hostile, done);
        await new Promise((resolve) => setTimeout(resolve, 500));
        resident.push(residentBytes(hostile));
      }
      const after = await ours.status();
      const [begin = 0, first = 0, again = 0] = resident;
      t.diagnostic(`resident: ${resident.map((each) => (each / MEGABYTE).toFixed(1)).join(', ')} MB`);
      t.diagnostic(JSON.stringify(counted(before, after)));
      assert.ok(first - begin < GROWTH.first, 'the first flood');
      assert.ok(again - first < GROWTH.again, 'the second flood');
      const refused = counters.reduce((sum, counter) => sum + (counted(before, after)[counter] ?? 0), 0);
      // A busy machine drops most of it before the tunnel sees it.
      assert.ok(refused > count / 50, 'it has arrived, and was refused for what it is');
      assert.ok((counted(before, after).responsesSent ?? 0) <= (await handshakes()), 'nobody has a session for it');
      assert.deepEqual(await places(hostile), ['192.0.2.2', '192.0.2.2', undefined]);
      assert.ok(ours.process.running && !ours.process.stdout.includes('"ended"'));
    });
  }
});

test('while initiations come from everywhere both peers begin anew, and one from a place not known before gets in', async (t) => {
  const hostile = await lab(t);
  if (!hostile) return;
  const { attacker, ours, second, there, mallory, target, farKeys, hereForFar } = hostile;
  const publicKey = keyBytes(ours.publicKey);
  const begin = async (from: Attacker, perSecond: number) => {
    const attack = { kind: 'unknown keys', publicKey } as const;
    const { done } = await from.begin({ target, attack, count: 60 * perSecond, perSecond, from: 'anywhere' });
    let isOver = false;
    const end = () => {
      isOver = true;
    };
    done.then(end, end);
    const { overload: before = 0 } = (await ours.status()).counters;
    await eventually('it is under load', async () => {
      return ((await ours.status()).counters.overload ?? 0) > before + 100 || undefined;
    });
    return () => isOver;
  };
  const isAnswered = async (host: LabHost, address: string) => {
    const { status } = await host.run('ping', ['-n', '-c1', '-W3', address], { check: false });
    return status === 0 || undefined;
  };
  const isOver = await begin(attacker, PER_SECOND);
  const before = await ours.status();
  await beginAnew(hostile);
  await second.configure({ peers: [{ publicKey, remove: true }] });
  const endpoint = `192.0.2.1:${PORTS.here}`;
  await second.addPeers({ publicKey: ours.publicKey, endpoint, allowedIps: [`${SECOND.here}/32`] });
  await eventually('wireguard-go has a session', () => isAnswered(there, INSIDE.IPv4.here), 50_000);
  await eventually('this tunnel has a session', () => isAnswered(there, SECOND.here), 50_000);
  assert.equal(isOver(), false, 'the flood went on');
  // Whoever began: this tunnel does when nothing comes back in a session that the other has forgotten.
  const { handshakes = 0 } = counted(before, await ours.status());
  assert.ok(handshakes >= 2, `${handshakes} sessions are new`);
  await attacker.stop();

  // A cookie for five of eight.
  const other = startAttacker(mallory);
  const isOtherOver = await begin(other, 4_000);
  await startOurTunnel(mallory, 'far0', { keys: farKeys, addresses: [`${FAR.there}/24`], peers: [hereForFar] });
  await eventually('somebody new has a session', () => isAnswered(mallory, FAR.here), 50_000);
  assert.equal(isOtherOver(), false, 'the flood went on');
  await other.stop();
});
