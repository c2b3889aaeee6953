/** When a peer's silence is told, and with which reason. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HandshakeWatch } from '../../../src/cli/handshake-watch.js';
import type { PeerStatus } from '../../../src/tunnel/wireguard/device-config.js';

const START = Date.UTC(2026, 0, 1);
const KEY = new Uint8Array(32).fill(7);
const ENDPOINT = { address: '198.51.100.2', port: 51820 };

function peer(more: Partial<PeerStatus> = {}): PeerStatus {
  return {
    publicKey: KEY,
    hasPresharedKey: false,
    endpoint: ENDPOINT,
    lastHandshakeMs: 0,
    receivedBytes: 0,
    sentBytes: 0,
    persistentKeepaliveSeconds: 0,
    allowedIps: [],
    ...more,
  };
}

/** A tunnel that sends `sent` initiations, of which the kernel takes all but `unsent`. */
function status(sent: number, more: Partial<PeerStatus> = {}, counters: Record<string, number> = {}, unsent = 0) {
  return {
    peers: [peer({ sentBytes: 148 * sent, ...more })],
    counters,
    traffic: { datagramsOut: sent - unsent, unsent },
  };
}

function watchFor(seconds: number, at: (second: number) => ReturnType<typeof status>, watch = new HandshakeWatch()) {
  const said: string[] = [];
  for (let second = 0; second <= seconds; second += 5) {
    said.push(...watch.sample(at(second), START + second * 1000).map((line) => `${second} ${line}`));
  }
  return { watch, said };
}

test('a peer that nothing is sent to is no problem, however long', () => {
  const { watch, said } = watchFor(3600, () => status(0));
  assert.deepEqual(said, []);
  assert.equal(watch.problemOf(KEY), undefined);
  assert.equal(watch.isUneasy, false);
});

test('a handshake that comes in time is no news; one that does not is told once, and so is its end', () => {
  const { watch, said } = watchFor(60, (second) => status(1 + second / 5));
  assert.equal(said.length, 1);
  assert.match(said[0] ?? '', /^20 no handshake with 198\.51\.100\.2:51820: nothing comes back: /);
  assert.match(watch.problemOf(KEY) ?? '', /^nothing comes back: /);
  assert.ok(watch.isUneasy);
  const shaken = status(14, { lastHandshakeMs: START + 61_000 });
  assert.deepEqual(watch.sample(shaken, START + 65_000), ['handshake with 198.51.100.2:51820']);
  assert.equal(watch.problemOf(KEY), undefined);
  assert.equal(watch.isUneasy, false);
  assert.deepEqual(watch.sample(shaken, START + 70_000), []);

  const quick = watchFor(170, (second) => status(second, { lastHandshakeMs: START + 1000 }));
  assert.deepEqual(quick.said, []);
});

test('a session that is over, and not renewed although something is sent, is told as well', () => {
  const { said } = watchFor(300, (second) => status(second, { lastHandshakeMs: START }));
  assert.equal(said.length, 1);
  assert.match(said[0] ?? '', /^205 no handshake with /);
});

test('what was sent last in a session that is over by the next look is no news: the tunnel is idle', () => {
  const watch = new HandshakeWatch();
  const idle = { lastHandshakeMs: START };
  // An idle tunnel is looked at once a minute; a side that answers does not renew the session.
  const looks: [second: number, sent: number][] = [
    [125, 5],
    [185, 6],
    [190, 6],
    [210, 6],
    [250, 6],
  ];
  const said = looks.flatMap(([second, sent]) => watch.sample(status(sent, idle), START + second * 1000));
  assert.deepEqual(said, []);
  assert.equal(watch.problemOf(KEY), undefined);
  assert.equal(watch.isUneasy, false);

  const late: [second: number, sent: number][] = [
    [300, 7],
    [305, 8],
    [325, 12],
  ];
  const told = late.flatMap(([second, sent]) => watch.sample(status(sent, idle), START + second * 1000));
  assert.equal(told.length, 1, 'what is sent later without a session is');
});

test('what could not be sent to one of several peers is no problem of the others', () => {
  const other = peer({ publicKey: new Uint8Array(32).fill(8) });
  const { watch, said } = watchFor(60, (second) => {
    const { peers, counters } = status(0);
    return { peers: [...peers, other], counters, traffic: { datagramsOut: 0, unsent: second } };
  });
  assert.deepEqual(said, []);
  assert.equal(watch.problemOf(KEY), undefined);
});

test('the reason is what can be told apart', () => {
  const cases: [said: RegExp, more: Partial<PeerStatus>, counters: Record<string, number>, unsent: boolean][] = [
    [/^nothing comes back: /, {}, {}, false],
    [/^it answers, but not with our keys: PresharedKey /, {}, { badResponse: 3 }, false],
    [/^what comes in is for another key than ours: /, {}, { badMac: 1 }, false],
    [/^this machine cannot send to it: /, {}, { badResponse: 3 }, true],
  ];
  for (const [said, more, counters, isUnsent] of cases) {
    const { watch } = watchFor(30, (second) => status(second + 1, more, counters, isUnsent ? second + 1 : 0));
    assert.match(watch.problemOf(KEY) ?? 'none', said);
  }
});

test('a peer that is removed is forgotten', () => {
  const { watch } = watchFor(60, (second) => status(second));
  watch.sample({ ...status(13), peers: [] }, START + 65_000);
  assert.equal(watch.problemOf(KEY), undefined);
});
