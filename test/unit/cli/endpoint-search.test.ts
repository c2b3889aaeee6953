import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { namedPeers, startEndpointSearch } from '../../../src/cli/endpoint-search.js';
import { SAMPLE_MS } from '../../../src/cli/stall-watch.js';
import { EX_CONFIG, FileProblem } from '../../../src/cli/wireguard/problem.js';
import type { EndpointText, PeerStatus } from '../../../src/tunnel/wireguard/device-config.js';
import { BOB, sample } from './wireguard/lib/samples.js';

const NAMED = sample({ peer: ['Endpoint = wg.example.org:51820', 'AllowedIPs = ::/0'] }).peers;
const LITERAL = sample({ peer: ['Endpoint = [2001:db8::1]:51820', 'AllowedIPs = ::/0'] }).peers;

interface World {
  /** One interval passes, in which that much is sent to the peer and received from it. */
  pass(sent: number, received: number): Promise<void>;
  moves: EndpointText[];
  notes: string[];
  asked: (string | undefined)[];
  end(): void;
}

function world(t: TestContext, peers: typeof NAMED, choose: () => Promise<EndpointText>): World {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const peer = { publicKey: new Uint8Array(Buffer.from(BOB, 'base64')), sentBytes: 0, receivedBytes: 0 } as PeerStatus;
  peer.endpoint = { address: '192.0.2.1', port: 51820 };
  const [moves, notes, asked]: [EndpointText[], string[], (string | undefined)[]] = [[], [], []];
  const end = startEndpointSearch({
    peers,
    status: async () => ({ peers: [{ ...peer }] }),
    choose: async (_, current) => {
      asked.push(current);
      return choose();
    },
    move: async ({ endpoint }) => {
      assert.ok(endpoint);
      moves.push(endpoint);
      peer.endpoint = endpoint;
    },
    note: (sentence) => void notes.push(sentence),
  });
  const pass = async (sent: number, received: number) => {
    peer.sentBytes += sent;
    peer.receivedBytes += received;
    t.mock.timers.tick(SAMPLE_MS);
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { pass, moves, notes, asked, end };
}

test('a peer of a name that does not answer is moved to the next address', async (t) => {
  const { pass, moves, notes, asked, end } = world(t, NAMED, async () => ({ address: '192.0.2.2', port: 51820 }));
  await pass(0, 0);
  for (let round = 0; round < 5; round++) await pass(148, 92);
  assert.deepEqual(moves, []);
  for (let round = 0; round < 3; round++) await pass(148, 0);
  assert.deepEqual(moves, [{ address: '192.0.2.2', port: 51820 }]);
  assert.deepEqual(notes, ['wg.example.org does not answer at 192.0.2.1: trying 192.0.2.2']);
  assert.deepEqual(asked, ['192.0.2.1']);
  for (let round = 0; round < 3; round++) await pass(148, 0);
  assert.equal(moves.length, 1, 'there is no other address');
  end();
  for (let round = 0; round < 6; round++) await pass(148, 0);
  assert.equal(asked.length, 2);
});

test('an address that was dead from the start is left after three intervals', async (t) => {
  const { pass, moves, end } = world(t, NAMED, async () => ({ address: '192.0.2.2', port: 51820 }));
  await new Promise((resolve) => setImmediate(resolve));
  for (let round = 0; round < 2; round++) await pass(148, 0);
  assert.deepEqual(moves, []);
  await pass(148, 0);
  assert.deepEqual(moves, [{ address: '192.0.2.2', port: 51820 }]);
  end();
});

test('a name that cannot be found is said once, and searched on', async (t) => {
  const { pass, notes, asked } = world(t, NAMED, async () => {
    throw new FileProblem(EX_CONFIG, 'office.conf', 6, 'Endpoint wg.example.org cannot be resolved');
  });
  await pass(0, 0);
  for (let round = 0; round < 9; round++) await pass(148, 0);
  assert.equal(asked.length, 3);
  assert.deepEqual(notes, ['office.conf:6: Endpoint wg.example.org cannot be resolved']);
});

test('without names in the file nothing runs', async (t) => {
  assert.equal(namedPeers(NAMED).get(BOB)?.value.host, 'wg.example.org');
  assert.equal(namedPeers(LITERAL).size, 0);
  const { pass, asked } = world(t, LITERAL, async () => assert.fail());
  for (let round = 0; round < 9; round++) await pass(148, 0);
  assert.deepEqual(asked, []);
});
