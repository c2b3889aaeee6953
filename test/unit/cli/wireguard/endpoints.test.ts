/** From endpoints to addresses: names, families, routes, links; the machine's part is made up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  chooseEndpoint,
  chooseEndpoints,
  type EndpointSources,
  lookupOrElse,
  machineSources,
} from '../../../../src/cli/wireguard/endpoints.js';
import { FileProblem } from '../../../../src/cli/wireguard/problem.js';
import { KernelError } from '../../../../src/model/errors.js';
import { BroadcastError } from '../../../../src/tunnel/path-mtu.js';
import { CAROL, parse, sample, sampleText } from './lib/samples.js';

interface World {
  /** Of host names. */
  names?: Record<string, string[]>;
  /** Of addresses; a text is the errno of a route that is none, or broadcast. Others have 1500. */
  routes?: Record<string, number | string>;
}

function sources({ names = {}, routes = {} }: World = {}, asked: string[] = []): EndpointSources {
  return {
    lookup: async (host) => {
      asked.push(host);
      return names[host] ?? Promise.reject(Object.assign(new Error('no'), { code: 'ENOTFOUND' }));
    },
    routeMtu: async (address) => {
      const route = routes[address] ?? 1500;
      if (route === 'broadcast') throw new BroadcastError(address);
      if (typeof route === 'string') throw new KernelError('connect', address, route);
      return route;
    },
    interfaceIndex: (name) => (name === 'eth0' ? 2 : undefined),
  };
}

async function choose(endpoint: string, world: World = {}, current?: string, own?: string[]): Promise<unknown> {
  const file = sample({ peer: [`Endpoint = ${endpoint}`], ...(own && { own }) });
  const [peer] = file.peers;
  assert.ok(peer?.endpoint);
  try {
    return await chooseEndpoint(file, peer.endpoint, sources(world), current);
  } catch (error) {
    if (!(error instanceof FileProblem)) throw error;
    assert.equal(error.exitCode, 78);
    return error.message;
  }
}

const NAMES = { 'a.example': ['2001:db8::1', '192.0.2.1', '192.0.2.2'] };

test('a literal is taken as it is, with the MTU of its route; a link-local one with the index of its link', async () => {
  const found = { address: '192.0.2.9', port: 7, addresses: ['192.0.2.9'], routeMtu: 1400 };
  assert.deepEqual(await choose('192.0.2.9:7', { routes: { '192.0.2.9': 1400 } }), found);
  const linkLocal = { address: 'fe80::1', port: 7, addresses: ['fe80::1'], scopeId: 2, routeMtu: 1500 };
  assert.deepEqual(await choose('[fe80::1%eth0]:7'), linkLocal);
  assert.equal(await choose('[fe80::1%eth1]:7'), 'office.conf:6: Endpoint: there is no interface eth1');
});

test('of a name the first address is taken that has a route, whatever its family', async () => {
  const address = async (world: World) =>
    ((await choose('a.example:7', { names: NAMES, ...world })) as { address: string }).address;
  assert.equal(await address({}), '2001:db8::1');
  assert.equal(await address({ routes: { '2001:db8::1': 'ENETUNREACH' } }), '192.0.2.1');
  assert.equal(await address({ routes: { '2001:db8::1': 'EADDRNOTAVAIL', '192.0.2.1': 'EACCES' } }), '192.0.2.2');
});

test('a peer that does not answer is tried at every other address of its name before this one again', async () => {
  // Name servers change the order from answer to answer.
  const orders = [NAMES['a.example'], NAMES['a.example'].toReversed(), NAMES['a.example']];
  for (const first of NAMES['a.example']) {
    const visited: string[] = [];
    let current = first;
    for (const order of orders) {
      const found = await choose('a.example:7', { names: { 'a.example': order } }, current);
      current = (found as { address: string }).address;
      visited.push(current);
    }
    assert.deepEqual(visited.toSorted(), NAMES['a.example'].toSorted(), String(visited));
  }
  const moved = await choose('a.example:7', { names: NAMES }, '198.51.100.7');
  assert.equal((moved as { address: string }).address, '2001:db8::1', 'the name has moved');
});

test('no route, no name, and addresses that no peer can have are one line', async () => {
  const none = Object.fromEntries(NAMES['a.example'].map((address) => [address, 'ENETUNREACH']));
  const table: [endpoint: string, world: World, said: string][] = [
    [
      '192.0.2.9:7',
      { routes: { '192.0.2.9': 'EHOSTUNREACH' } },
      'Endpoint 192.0.2.9: there is no route to it (EHOSTUNREACH); connect this machine to a network that has one',
    ],
    [
      'a.example:7',
      { names: NAMES, routes: none },
      'Endpoint a.example (2001:db8::1): there is no route to it (ENETUNREACH); connect this machine to a network that has one',
    ],
    ['b.example:7', {}, 'Endpoint b.example cannot be resolved (ENOTFOUND); check the name, and that DNS works'],
    [
      'b.example:7',
      { names: { 'b.example': [] } },
      'Endpoint b.example resolves to no address that a peer can have; check the name',
    ],
    [
      'b.example:7',
      { names: { 'b.example': ['0.0.0.0', '::', '::ffff:1.2.3.4', 'ff02::1', 'x'] } },
      'Endpoint b.example resolves to no address that a peer can have; check the name',
    ],
    [
      'b.example:7',
      { names: { 'b.example': ['10.0.0.2'] } },
      'Endpoint b.example (10.0.0.2) is our own Address; give the address at which the peer is reached from outside',
    ],
  ];
  for (const [endpoint, world, said] of table) assert.equal(await choose(endpoint, world), `office.conf:6: ${said}`);
});

test('a broadcast address is said to be one, and of a name passed over', async () => {
  const broadcast = { '192.0.2.255': 'broadcast' };
  const said = "is the broadcast address of a network of this machine's; give the peer's own";
  assert.equal(await choose('192.0.2.255:7', { routes: broadcast }), `office.conf:6: Endpoint 192.0.2.255 ${said}`);
  const names = { 'a.example': ['192.0.2.255'], 'b.example': ['192.0.2.255', '192.0.2.1'] };
  const world = { names, routes: broadcast };
  assert.equal(await choose('a.example:7', world), `office.conf:6: Endpoint a.example (192.0.2.255) ${said}`);
  assert.equal(((await choose('b.example:7', world)) as { address: string }).address, '192.0.2.1');
});

test('addresses of a name that lie behind the tunnel are passed over', async () => {
  const names = { 'a.example': ['10.0.0.1', '192.0.2.1'] };
  assert.deepEqual(await choose('a.example:7', { names }, undefined, ['Address = 10.0.0.2/24']), {
    address: '192.0.2.1',
    port: 7,
    addresses: ['192.0.2.1'],
    routeMtu: 1500,
  });
});

test('an error that is no missing route goes on', async () => {
  const file = sample({ peer: ['Endpoint = 192.0.2.1:7'] });
  const broken = { ...sources(), routeMtu: () => Promise.reject(new Error('vpnd went away')) };
  await assert.rejects(chooseEndpoints(file, broken), { message: 'vpnd went away' });
});

test('all peers: each name is asked for once, peers without an endpoint are left out, the first problem is told', async () => {
  const text = `${sampleText({ peer: ['Endpoint = a.example:7'] })}[Peer]\nPublicKey = ${CAROL}\nEndpoint = a.example:8\n`;
  const third = `[Peer]\nPublicKey = ${Buffer.alloc(32, 9).toString('base64')}\n`;
  const file = parse(text + third);
  const asked: string[] = [];
  const { chosen, notYet } = await chooseEndpoints(file, sources({ names: NAMES }, asked));
  assert.equal(notYet.size, 0);
  assert.deepEqual(asked, ['a.example']);
  assert.deepEqual(
    [...chosen].map(([peer, { port }]) => [file.peers.indexOf(peer), port]),
    [
      [0, 7],
      [1, 8],
    ],
  );
  const broken = parse(`${text}${third}Endpoint = c.example:1\n`.replace('a.example:8', 'b.example:8'));
  await assert.rejects(chooseEndpoints(broken, sources({ names: NAMES })), {
    message: /^office\.conf:9: Endpoint b\.example/,
  });
});

test('what is not to be had yet is told for each peer, with the endpoint where the file has an address', async () => {
  const text = `${sampleText({ peer: ['Endpoint = a.example:7'] })}[Peer]\nPublicKey = ${CAROL}\nEndpoint = [2001:db8::9]:8\n`;
  const file = parse(text);
  const away = Object.assign(new Error('no'), { code: 'EAI_AGAIN' });
  const world = { ...sources({ routes: { '2001:db8::9': 'ENETUNREACH' } }), lookup: () => Promise.reject(away) };
  const { chosen, notYet } = await chooseEndpoints(file, world);
  assert.equal(chosen.size, 0);
  const told = [...notYet.values()].map(({ line, what, endpoint }) => ({ line, what, endpoint }));
  assert.deepEqual(told, [
    { line: 6, what: 'a.example', endpoint: undefined },
    { line: 9, what: 'a route to 2001:db8::9', endpoint: { address: '2001:db8::9', port: 8 } },
  ]);
  const never = { ...world, routeMtu: () => Promise.reject(new KernelError('connect', '', 'EAFNOSUPPORT')) };
  await assert.rejects(chooseEndpoints(file, never), /office\.conf:9: Endpoint 2001:db8::9/);
});

test('who is asked next is asked only where no name server was to be had', async () => {
  const failing = (code: string) =>
    lookupOrElse(
      async () => ['192.0.2.7'],
      () => Promise.reject(Object.assign(new Error('no'), { code })),
    );
  assert.deepEqual(await failing('EAI_AGAIN')('a.example'), ['192.0.2.7']);
  for (const code of ['ENOTFOUND', 'EAI_FAIL']) await assert.rejects(failing(code)('a.example'), { code });
});

test('the machine itself resolves localhost and knows the way there, protected first when asked to', async () => {
  const protectedFds: number[] = [];
  const machine = machineSources(async (fd) => void protectedFds.push(fd));
  const addresses = await machine.lookup('localhost');
  assert.ok(addresses.includes('127.0.0.1') || addresses.includes('::1'), String(addresses));
  assert.ok((await machine.routeMtu('127.0.0.1', undefined)) >= 1280);
  assert.equal(protectedFds.length, 1);
  assert.equal(machine.interfaceIndex('lo'), 1);
  assert.equal(machine.interfaceIndex('7'), 7);
  assert.equal(machine.interfaceIndex('no-such-link'), undefined);
});
