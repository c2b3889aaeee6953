/** wg-quick files as wg-quick(8) and wg(8) read them, and the way back. What is wrong in a file: bad-input.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { At, QuickFile } from '../../../../src/cli/wireguard/quick-file.js';
import { printQuickFile } from '../../../../src/cli/wireguard/quick-print.js';
import { clearHostBits, isHostAddress, reservedHosts } from '../../../../src/model/address.js';
import { publicKeyOf } from '../../../../src/tunnel/wireguard/x25519.js';
import { ALICE_PRIVATE, BOB, CAROL, parse, problemOf, sample, sampleText } from './lib/samples.js';

const bytes = (base64: string): Uint8Array => new Uint8Array(Buffer.from(base64, 'base64'));
const at = <T>(value: T, line: number): At<T> => ({ value, line });

const WHOLE = `# the office
[Interface]
PrivateKey = ${ALICE_PRIVATE}
ListenPort=51820
Address = 10.0.0.2/24, FD00:0::2/64
Address = 192.0.2.7   # without a length
DNS = 10.0.0.1 fd00::1, Corp.Example.org.
DNS = internal
MTU = 1400
Table = Auto
FwMark = off
SaveConfig = false

[Peer]
PublicKey = ${BOB}
PresharedKey = ${CAROL}
AllowedIPs = 0.0.0.0/0, ::/0
AllowedIPs = 10.9.8.7/8
Endpoint = [2001:DB8::1]:51820
PersistentKeepalive = 25

[Peer]
PublicKey = ${CAROL}
Endpoint = vpn.example.org:443
PersistentKeepalive = off
`;

test('every key of both sections is read, and keeps its line', () => {
  assert.deepEqual(parse(WHOLE), {
    path: 'office.conf',
    interface: {
      line: 2,
      privateKey: at(bytes(ALICE_PRIVATE), 3),
      listenPort: at(51820, 4),
      fwMark: at(0, 11),
      addresses: [
        at({ address: '10.0.0.2', prefixLength: 24 }, 5),
        at({ address: 'fd00::2', prefixLength: 64 }, 5),
        at({ address: '192.0.2.7', prefixLength: 32 }, 6),
      ],
      dnsServers: [at('10.0.0.1', 7), at('fd00::1', 7)],
      searchDomains: [at('corp.example.org', 7), at('internal', 8)],
      mtu: at(1400, 9),
      table: 'auto',
      hooks: { preUp: [], postUp: [], preDown: [], postDown: [] },
      saveConfig: false,
    },
    peers: [
      {
        line: 14,
        publicKey: at(bytes(BOB), 15),
        presharedKey: at(bytes(CAROL), 16),
        allowedIps: [
          at({ address: '0.0.0.0', prefixLength: 0 }, 17),
          at({ address: '::', prefixLength: 0 }, 17),
          at({ address: '10.0.0.0', prefixLength: 8 }, 18),
        ],
        endpoint: at({ host: '2001:db8::1', port: 51820, zone: undefined }, 19),
        persistentKeepaliveSeconds: 25,
      },
      {
        line: 22,
        publicKey: at(bytes(CAROL), 23),
        presharedKey: undefined,
        allowedIps: [],
        endpoint: at({ host: 'vpn.example.org', port: 443, zone: undefined }, 24),
        persistentKeepaliveSeconds: 0,
      },
    ],
  } satisfies QuickFile);
});

test('case of names, blanks, CR LF, a byte order mark and a missing last newline make no difference', () => {
  const plain = parse(WHOLE);
  const shouted = WHOLE.replace(/^(\[?)(\w+)/gm, (_, bracket: string, name: string) => bracket + name.toUpperCase());
  for (const text of [
    shouted,
    WHOLE.replaceAll('\n', '\r\n'),
    `\ufeff${WHOLE}`,
    WHOLE.replace(/^(\w+) ?= ?/gm, '\t $1\t=\u00a0'),
    WHOLE.replace(/^(\w+) ?= ?/gm, '$1='),
    WHOLE.replace(/$/gm, ' # PrivateKey = [Peer] =').replace(/\n[^\n]*$/, ''),
    WHOLE.trimEnd(),
  ]) {
    assert.deepEqual(parse(text), plain, JSON.stringify(text));
  }
});

test('[Interface] may come last and in pieces; its line is that of the first', () => {
  const text = `[Peer]\nPublicKey = ${BOB}\n[Interface]\nAddress = 10.0.0.2\n[interface]\nPrivateKey = ${ALICE_PRIVATE}`;
  const { interface: own, peers } = parse(text);
  assert.deepEqual([own.line, own.privateKey?.line, own.addresses.length, peers.length], [3, 6, 1, 1]);
});

test('commands are taken in the order of the file when hooks are allowed, up to a #', () => {
  const own = [
    'Address = 10.0.0.2',
    'PostUp = echo a=b; echo %i # hi',
    'postup = two',
    'PreDown = x',
    'SaveConfig = TRUE',
  ];
  const { hooks, saveConfig } = parse(sampleText({ own }), true).interface;
  assert.deepEqual(hooks, {
    preUp: [],
    postUp: [at('echo a=b; echo %i', 4), at('two', 5)],
    preDown: [at('x', 6)],
    postDown: [],
  });
  assert.equal(saveConfig, true);
});

test('Table, FwMark and ListenPort that mean nothing special are taken', () => {
  for (const line of ['FwMark = 0', 'FwMark = 0x0', 'FwMark = OFF', 'ListenPort = 0', 'Table = auto']) {
    assert.equal(sample({ own: ['Address = 10.0.0.2', line] }).interface.table, 'auto', line);
  }
  for (const [text, value] of [
    ['0xCA6C', 0xca6c],
    ['51820', 51820],
    ['off', 0],
  ] as const) {
    assert.deepEqual(sample({ own: ['Address = 10.0.0.2', `FwMark = ${text}`] }).interface.fwMark, at(value, 4));
  }
  assert.equal(sample({ own: ['Address = 10.0.0.2', 'Table = off'] }).interface.table, 'off');
});

test('a value left blank is absent, whatever its key, and no second one', () => {
  const blank = (keys: string[], how: string) => keys.map((key) => `${key}${how}`);
  const interfaceKeys = ['PrivateKey', 'ListenPort', 'FwMark', 'Address', 'DNS', 'MTU', 'Table', 'SaveConfig'];
  const hooks = ['PreUp', 'PostUp', 'PreDown', 'PostDown'];
  const peerKeys = ['PublicKey', 'PresharedKey', 'AllowedIPs', 'Endpoint', 'PersistentKeepalive'];
  for (const how of ['=', ' = ', ' = # later', '=\t\r', ' = ,']) {
    const lists = how === ' = ,';
    const own = lists ? ['Address = ,', 'DNS = , ,'] : blank([...interfaceKeys, ...hooks, 'Jc', 'I5'], how);
    const peer = lists ? ['AllowedIPs = ,'] : blank(peerKeys, how);
    for (const allowHooks of [false, true]) {
      const text = sampleText({
        own: [...own, 'Address = 10.0.0.2', ...own],
        peer: [...peer, 'AllowedIPs = ::/0', ...peer],
      });
      const plain = parse(sampleText({ own: ['Address = 10.0.0.2'], peer: ['AllowedIPs = ::/0'] }), allowHooks);
      assert.deepEqual(withoutLines(parse(text, allowHooks)), withoutLines(plain), how);
    }
  }
});

test('blanks that wg(8) takes no notice of are none: in names, sections, keys, numbers and addresses', () => {
  const plain = parse(WHOLE);
  const blanks = WHOLE.replace('[Peer]', '[ Peer ]')
    .replace('[Interface]', '[ Interface\t]')
    .replace('AllowedIPs', 'Allowed IPs')
    .replace('PublicKey', 'Public Key')
    .replace('0.0.0.0/0, ::/0', '0.0.0.0 / 0 , :: /0')
    .replace('10.9.8.7/8', '10.9.8.7/ 8')
    .replace('[2001:DB8::1]:51820', '[ 2001:DB8::1 ] : 51820')
    .replace('vpn.example.org:443', 'vpn.example.org : 443')
    .replace(BOB, `${BOB.slice(0, 7)} ${BOB.slice(7)}`)
    .replace('ListenPort=51820', 'ListenPort=51 820')
    .replace('= 25', '= 2 5');
  assert.deepEqual(parse(blanks), plain);
  // A list with blanks in between stays one.
  const { peers } = sample({ peer: ['AllowedIPs = 10.0.0.0/8 192.168.0.0/16 ::1 1.2.3.4'] });
  assert.equal(peers[0]?.allowedIps.length, 4);
});

test('endpoints: addresses of both families, names, interfaces of link-local addresses, programs on loopback', () => {
  const table: Record<string, [host: string, port: number, zone?: string]> = {
    '192.0.2.1:1': ['192.0.2.1', 1],
    '[2001:DB8:0::1]:65535': ['2001:db8::1', 65535],
    '[fe80::1%eth0]:51820': ['fe80::1', 51820, 'eth0'],
    '[fe80::1%3]:51820': ['fe80::1', 51820, '3'],
    'vpn_1.example.org.:51820': ['vpn_1.example.org.', 51820],
    'office:51820': ['office', 51820],
    '127.0.0.1:51820': ['127.0.0.1', 51820],
    '[::1]:51820': ['::1', 51820],
    '1.2.3.4.example:51820': ['1.2.3.4.example', 51820],
  };
  for (const [text, [host, port, zone]] of Object.entries(table)) {
    const [peer] = sample({ peer: [`Endpoint = ${text}`] }).peers;
    assert.deepEqual(peer?.endpoint?.value, { host, port, zone }, text);
  }
});

test('prefixes that are nested, in one peer twice, or the endpoint of their peer are fine', () => {
  const { peers } = parse(
    sampleText({ peer: ['AllowedIPs = 10.0.0.0/8,10.0.0.0/8, 10.3.2.1/8', 'Endpoint = 10.1.1.1:51820'] }) +
      `[Peer]\nPublicKey = ${CAROL}\nAllowedIPs = 10.1.0.0/16, , 0.0.0.0/0`,
  );
  assert.deepEqual(
    peers.map(({ allowedIps }) => allowedIps.map(({ value }) => `${value.address}/${value.prefixLength}`)),
    [['10.0.0.0/8'], ['10.1.0.0/16', '0.0.0.0/0']],
  );
});

test('a peer may have no AllowedIPs, as wg showconf prints them, and a file no peer', () => {
  assert.deepEqual(sample({ peer: ['AllowedIPs ='] }).peers[0]?.allowedIps, []);
  assert.deepEqual(sample().peers, []);
});

const key = fc.uint8Array({ minLength: 32, maxLength: 32 }).filter((each) => each.some((byte) => byte !== 0));
const literal = fc.oneof(fc.ipV4(), fc.ipV6()).map((text) => clearHostBits(text, text.includes(':') ? 128 : 32));
const prefix = literal.chain((address) =>
  fc.record({
    address: fc.constant(address),
    prefixLength: fc.integer({ min: 1, max: address.includes(':') ? 128 : 32 }),
  }),
);
const address = prefix.filter((each) => isHostAddress(each.address) && !reservedHosts(each).includes(each.address));
const label = fc.stringMatching(/^[a-z][a-z0-9_-]{0,8}$/);
const domain = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => labels.join('.'));
const command = fc.stringMatching(/^[!-"$-~]([ -"$-~]{0,20}[!-"$-~])?$/);
const line = <T>(value: fc.Arbitrary<T>) => value.map((each) => at(each, 0));
const maybe = <T>(value: fc.Arbitrary<T>) => fc.option(line(value), { nil: undefined });
const some = <T>(value: fc.Arbitrary<T>, maxLength = 4) => fc.array(line(value), { maxLength });
const host = fc.oneof(
  literal.filter((each) => isHostAddress(each) && !/^fe[89ab]/.test(each)),
  domain,
);
const peer = fc.record({
  line: fc.constant(0),
  publicKey: line(key),
  presharedKey: maybe(key),
  allowedIps: some(prefix.map((each) => ({ ...each, address: clearHostBits(each.address, each.prefixLength) }))),
  endpoint: maybe(fc.record({ host, port: fc.integer({ min: 1, max: 65535 }), zone: fc.constant(undefined) })),
  persistentKeepaliveSeconds: fc.integer({ min: 0, max: 65535 }),
});
const file: fc.Arbitrary<QuickFile> = fc.record({
  path: fc.constant('office.conf'),
  interface: fc.record({
    line: fc.constant(0),
    privateKey: line(key),
    listenPort: maybe(fc.integer({ min: 0, max: 65535 })),
    fwMark: maybe(fc.integer({ min: 0, max: 0xffffffff })),
    addresses: fc.array(line(address), { minLength: 1, maxLength: 4 }),
    dnsServers: some(literal.filter(isHostAddress)),
    searchDomains: some(domain),
    mtu: maybe(fc.integer({ min: 1280, max: 65455 })),
    table: fc.constantFrom('auto', 'off'),
    hooks: fc.record({ preUp: some(command), postUp: some(command), preDown: some(command), postDown: some(command) }),
    saveConfig: fc.boolean(),
  }),
  peers: fc.array(peer, { maxLength: 3 }),
});

function withoutLines(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value, (name, each) => (name === 'line' ? undefined : each)));
}

test('what printQuickFile() writes parseQuickFile() reads as the same file', () => {
  let read = 0;
  const property = fc.property(file, (given) => {
    const text = printQuickFile(given);
    // Addresses that happen to repeat, or to be a peer's, are wrong in any spelling.
    const said = problemOf(() => parse(text, true))?.said ?? '';
    if (/already|another peer's|our own Address|behind the tunnel/.test(said)) return;
    assert.equal(said, '');
    read++;
    const once = parse(text, true);
    assert.equal(
      printQuickFile(once),
      text.replace(/^AllowedIPs.*/gm, (list) => unrepeated(list)),
    );
    assert.deepEqual(withoutLines(parse(printQuickFile(once), true)), withoutLines(once));
    assert.deepEqual(withoutLines(once.interface), withoutLines(given.interface));
    const own = [once, given].map((each) => publicKeyOf(each.interface.privateKey?.value ?? assert.fail()));
    assert.deepEqual(own[0], own[1]);
  });
  fc.assert(property, { numRuns: 200 });
  assert.ok(read > 100, `${read} of 200 files were right`);
});

function unrepeated(list: string): string {
  const [name, values = ''] = list.split(' = ');
  return `${name} = ${[...new Set(values.split(', '))].join(', ')}`;
}

const word = fc.constantFrom(
  ...['[Interface]', '[Peer]', '[', ']', '=', ' ', '#', ',', '/', ':', '%', '\n', '\r', '\0', '\ufffd', '\ud800'],
  ...['PrivateKey', 'PublicKey', 'Address', 'DNS', 'MTU', 'AllowedIPs', 'Endpoint', 'PostUp', 'Table', 'ListenPort'],
  ...['10.0.0.1', '::1', '0', '-1', '1e9', '99999', 'off', 'a.b', ALICE_PRIVATE, BOB, 'toString', '__proto__'],
);
const noise = fc.array(fc.oneof(word, fc.string({ maxLength: 8, unit: 'binary' })), { maxLength: 12 });

test('no line makes the parser throw anything but a FileProblem, which is one line', () => {
  const lines = sampleText({ peer: ['AllowedIPs = 0.0.0.0/0', 'Endpoint = [::2]:1'] }).split('\n');
  const property = fc.property(noise, fc.nat(lines.length), fc.nat(1), fc.boolean(), (words, where, removed, hooks) => {
    const text = lines.toSpliced(where, removed, words.join('')).join('\n');
    const said = problemOf(() => parse(text, hooks))?.said;
    if (said !== undefined) assert.match(said, /^office\.conf:\d+: [^\p{Cc}\p{Cs}\p{Zl}\p{Zp}]+$/u);
  });
  fc.assert(property, { numRuns: 2000 });
});

test('no problem shows a key, whole or in pieces, wherever in the file it was pasted', () => {
  const lines = sampleText({
    own: ['Address = 10.0.0.2/32', 'DNS = 10.0.0.1', 'MTU = 1400', 'ListenPort = 1', 'PostUp = x', 'SaveConfig = true'],
    peer: ['AllowedIPs = 0.0.0.0/0', 'Endpoint = a.example:1', 'PersistentKeepalive = 5', `PresharedKey = ${CAROL}`],
  }).split('\n');
  const names = ['', 'PrivateKey =', 'Address =', 'Endpoint = ', 'DNS = x, ', 'Table = ', 'Foo = ', 'MTU = 1', '['];
  const behind = ['', ':51820', '/32', '=', ']', ' = x'];
  const property = fc.property(
    key.map((each) => Buffer.from(each).toString('base64')),
    fc.integer({ min: 26, max: 44 }),
    fc.nat(lines.length),
    fc.constantFrom(...names),
    fc.constantFrom(...behind),
    (secret, length, where, before, after) => {
      const part = secret.slice(0, length);
      const text = lines.toSpliced(where, 0, `${before}${part}${after}`).join('\n');
      const said = problemOf(() => parse(text))?.said ?? '';
      for (let index = 0; index + 12 <= length; index++) {
        assert.ok(!said.includes(part.slice(index, index + 12)), `${before}…${after}: ${said}`);
      }
    },
  );
  fc.assert(property, { numRuns: 1000 });
});
