/** One row for each thing that can be wrong with a wg-quick file: the exit code and, to the letter, the line that is printed. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { readQuickFile } from '../../../../src/cli/wireguard/read-file.js';
import { ALICE, ALICE_PRIVATE, BOB, CAROL, parse, problemOf, type Sample, sampleText } from './lib/samples.js';

const ZEROS = Buffer.alloc(32).toString('base64');
const KEY = 'a key is 44 characters of base64, as `vpnctl wg genkey` prints it';
const FORM = 'vpn.example.org:51820, 192.0.2.1:51820 or [2001:db8::1]:51820';
const ADDRESS = 'Address = 10.0.0.2/32';
const OWN_KEYS =
  '[Interface] has PrivateKey, ListenPort, FwMark, Address, DNS, MTU, Table, PreUp, PostUp, PreDown, PostDown, SaveConfig';
const AMNEZIA =
  "is AmneziaWG's, and a server that wants it does not answer plain WireGuard; ask for a WireGuard file, or use an AmneziaWG client";

/** `:LINE: reason`, so that rows stay short. */
type Row = [what: string, given: Sample | string, code: number, said: string];

const own = (...lines: string[]): Sample => ({ own: [ADDRESS, ...lines] });
const peer = (...lines: string[]): Sample => ({ peer: lines });
const second = (...lines: string[]) => `[Peer]\n${lines.join('\n')}\n`;

const ROWS: Row[] = [
  // Keys
  [
    'a private key that is too short',
    `[Interface]\nPrivateKey = ${BOB.slice(1)}\n${ADDRESS}`,
    65,
    `2: PrivateKey has 43 characters; ${KEY}`,
  ],
  [
    'a private key that is too long',
    `[Interface]\nPrivateKey = ${BOB}=\n${ADDRESS}`,
    65,
    `2: PrivateKey has 45 characters; ${KEY}`,
  ],
  [
    'a private key with a strange character',
    `[Interface]\nPrivateKey = ${BOB.replace(/^./, '!')}\n${ADDRESS}`,
    65,
    `2: PrivateKey is not base64 of 32 bytes; ${KEY}`,
  ],
  [
    'a private key with spare bits',
    `[Interface]\nPrivateKey = ${BOB.slice(0, 42)}9=\n${ADDRESS}`,
    65,
    `2: PrivateKey is not base64 of 32 bytes; ${KEY}`,
  ],
  [
    'a private key without padding',
    `[Interface]\nPrivateKey = ${BOB.slice(0, 43)}A\n${ADDRESS}`,
    65,
    `2: PrivateKey is not base64 of 32 bytes; ${KEY}`,
  ],
  [
    'a private key in hexadecimal',
    `[Interface]\nPrivateKey = ${'0a'.repeat(32)}\n${ADDRESS}`,
    65,
    `2: PrivateKey is in hexadecimal; ${KEY}`,
  ],
  [
    'a private key of zeros',
    `[Interface]\nPrivateKey = ${ZEROS}\n${ADDRESS}`,
    65,
    '2: PrivateKey is all zeros, which is no key; leave it out, or make one',
  ],
  [
    'a private key with nothing',
    `[Interface]\nPrivateKey =\n${ADDRESS}`,
    65,
    '1: [Interface] has no PrivateKey; `vpnctl wg genkey` makes one',
  ],
  ['a public key that is none', sampleText() + second('PublicKey = bob'), 65, `5: PublicKey has 3 characters; ${KEY}`],
  [
    'a public key of low order',
    sampleText() + second(`PublicKey = ${Buffer.from(`01${'00'.repeat(31)}`, 'hex').toString('base64')}`),
    65,
    '5: PublicKey is no usable X25519 key; ask the other side for its own',
  ],
  [
    'a preshared key of zeros',
    peer(`PresharedKey = ${ZEROS}`),
    65,
    '6: PresharedKey is all zeros, which is no key; leave it out, or make one',
  ],
  [
    'our own public key',
    sampleText() + second(`PublicKey = ${ALICE}`),
    65,
    "5: PublicKey is this side's own; a peer has the other side's",
  ],
  [
    'a peer twice',
    sampleText({ peer: [] }) + second(`PublicKey = ${BOB}`),
    65,
    "7: PublicKey is the peer's of line 5; make them one",
  ],
  // What is missing
  ['an empty file', '', 65, '1: there is no [Interface] section; add one'],
  ['only comments', '# nothing\n\n#', 65, '1: there is no [Interface] section; add one'],
  ['only a peer', second(`PublicKey = ${BOB}`), 65, '1: there is no [Interface] section; add one'],
  ['no private key', `\n[Interface]\n${ADDRESS}`, 65, '2: [Interface] has no PrivateKey; `vpnctl wg genkey` makes one'],
  ['no address', { own: [] }, 65, '1: [Interface] has no Address; a VPN needs one, such as 10.0.0.2/32'],
  [
    'no public key',
    sampleText({ peer: [] }) + second('AllowedIPs = ::/0'),
    65,
    '6: [Peer] has no PublicKey; ask the other side for it',
  ],
  // Lines
  [
    'a key outside a section',
    `ListenPort = 1\n${sampleText()}`,
    65,
    '1: ListenPort is outside a section; put [Interface] above it',
  ],
  [
    'a peer key outside a section',
    `endpoint = 1\n${sampleText()}`,
    65,
    '1: Endpoint is outside a section; put [Peer] above it',
  ],
  [
    'something else outside a section',
    `x = 1\n${sampleText()}`,
    65,
    '1: this key is outside a section; put [Interface] above it',
  ],
  ['an unknown section', `${sampleText()}[Peers]`, 65, '4: unknown section; there are [Interface] and [Peer]'],
  [
    'a section with something behind it',
    `${sampleText()}[Peer] Bob`,
    65,
    '4: unknown section; there are [Interface] and [Peer]',
  ],
  ['a misspelt key', own('DSN = 10.0.0.1'), 65, '4: unknown key; is it DNS?'],
  ['a misspelt key of a peer', peer('AllowedIP = ::/0'), 65, '6: unknown key; is it AllowedIPs?'],
  ['an unknown key', own('Obfuscation = 5'), 65, `4: unknown key; ${OWN_KEYS}`],
  [
    'a key that every object has',
    peer('constructor = 5'),
    65,
    '6: unknown key; [Peer] has PublicKey, PresharedKey, AllowedIPs, Endpoint, PersistentKeepalive',
  ],
  [
    'a key in the wrong section',
    peer('Address = 10.0.0.3/32'),
    65,
    '6: Address belongs into [Interface], not into [Peer]',
  ],
  ['a peer key in [Interface]', own('Endpoint = a:1'), 65, '4: Endpoint belongs into [Peer], not into [Interface]'],
  ['a line without =', own('hello'), 65, '4: this line is neither KEY = VALUE nor [SECTION]; a comment begins with #'],
  [
    'a comment of another kind',
    own('; hello'),
    65,
    '4: this line is neither KEY = VALUE nor [SECTION]; a comment begins with #',
  ],
  ['a key twice', own('MTU = 1400', '', 'mtu = 1400'), 65, '6: MTU is in line 4 already; keep one of them'],
  ['two private keys', own(`PrivateKey = ${BOB}`), 65, '4: PrivateKey is in line 2 already; keep one of them'],
  ['characters that are not UTF-8', own('DNS = caf\ufffd'), 65, '4: this line is not UTF-8; save the file as UTF-8'],
  // Addresses
  [
    'an address that is none',
    { own: ['Address = 10.0.0.300/24'] },
    65,
    '3: Address is "10.0.0.300/24", not an IP prefix such as 10.0.0.2/24 or fd00::2/64',
  ],
  [
    'an address with two lengths',
    { own: ['Address = 10.0.0.3/24/8'] },
    65,
    '3: Address is "10.0.0.3/24/8", not an IP prefix such as 10.0.0.2/24 or fd00::2/64',
  ],
  [
    'an empty address alone',
    { own: ['Address ='] },
    65,
    '1: [Interface] has no Address; a VPN needs one, such as 10.0.0.2/32',
  ],
  [
    'an empty public key',
    sampleText() + second('PublicKey ='),
    65,
    '4: [Peer] has no PublicKey; ask the other side for it',
  ],
  ['an empty key that is unknown', own('Obfuscation ='), 65, `4: unknown key; ${OWN_KEYS}`],
  [
    'a prefix that is too long',
    { own: ['Address = 10.0.0.2/33'] },
    65,
    '3: Address is "10.0.0.2/33"; the length of its prefix is not in 1..32',
  ],
  [
    'a prefix of no length',
    { own: ['Address = fd00::2/0'] },
    65,
    '3: Address is "fd00::2/0"; the length of its prefix is not in 1..128',
  ],
  [
    'a netmask',
    { own: ['Address = 10.0.0.2/255.255.255.0'] },
    65,
    '3: Address is "10.0.0.2/255.255.255.0"; the length of its prefix is not in 1..32',
  ],
  [
    'a network instead of an address',
    { own: ['Address = 10.0.0.0/24'] },
    65,
    '3: Address is "10.0.0.0/24", the network or broadcast address of its prefix; give a host\'s address, or write 10.0.0.0/32',
  ],
  [
    'an address no host can have',
    { own: ['Address = ff02::1/128'] },
    65,
    '3: Address is "ff02::1/128", which no host can have; give it one of your own',
  ],
  ['an address twice', own('Address = 10.0.0.2/24'), 65, '4: Address 10.0.0.2 is in line 3 already'],
  [
    'a key as address',
    { own: [`Address = ${ALICE_PRIVATE}`] },
    65,
    '3: Address is a value that may be a key, not an IP prefix such as 10.0.0.2/24 or fd00::2/64',
  ],
  // DNS, numbers, words
  ['a DNS server that is no address', own('DNS = 10.0.0.300'), 65, '4: DNS is "10.0.0.300", not an IP address'],
  ['a DNS server with a zone', own('DNS = fe80::1%eth0'), 65, '4: DNS is "fe80::1%eth0", not an IP address'],
  [
    'a search domain that is none',
    own('DNS = ~corp'),
    65,
    '4: DNS is "~corp", neither an IP address nor a search domain',
  ],
  [
    'a DNS server on this host',
    own('DNS = 127.0.0.53'),
    78,
    '4: DNS is 127.0.0.53, which cannot be reached through a VPN; leave it out',
  ],
  ['an MTU that is too small', own('MTU = 575'), 65, '4: MTU is "575", not a number in 576..65455'],
  ['an MTU that is too large', own('MTU = 65500'), 65, '4: MTU is "65500", not a number in 576..65455'],
  ['an MTU that is none', own('MTU = auto'), 65, '4: MTU is "auto", not a number in 576..65455'],
  [
    'an MTU that IPv6 has no use for',
    own('Address = fd00::2', 'MTU = 1279'),
    65,
    '5: MTU is 1279, but IPv6 needs 1280; raise it or remove the line',
  ],
  ['a port that is none', own('ListenPort = 65536'), 65, '4: ListenPort is "65536", not a number in 0..65535'],
  ['a port in other digits', own('ListenPort = 0x10'), 65, '4: ListenPort is "0x10", not a number in 0..65535'],
  [
    'an endless keepalive',
    peer('PersistentKeepalive = 65536'),
    65,
    '6: PersistentKeepalive is "65536", not a number in 0..65535, nor off',
  ],
  [
    'a keepalive with a unit',
    peer('PersistentKeepalive = 25s'),
    65,
    '6: PersistentKeepalive is "25s", not a number in 0..65535, nor off',
  ],
  ['SaveConfig that is neither', own('SaveConfig = yes'), 65, '4: SaveConfig is "yes", neither true nor false'],
  // Peers
  [
    'an allowed IP that is none',
    peer('AllowedIPs = 10.0.0.0/8, all'),
    65,
    '6: AllowedIPs is "all", not an IP prefix such as 10.0.0.0/8 or ::/0',
  ],
  [
    'an allowed IP that is to be removed',
    peer('AllowedIPs = -10.0.0.0/8'),
    65,
    '6: AllowedIPs is "-10.0.0.0/8", not an IP prefix such as 10.0.0.0/8 or ::/0',
  ],
  [
    'an allowed IP of two peers',
    sampleText({ peer: ['AllowedIPs = 10.1.2.3/8'] }) +
      second(`PublicKey = ${CAROL}`, 'AllowedIPs = ::/0', 'AllowedIPs = 10.9.9.9/8'),
    65,
    "10: AllowedIPs 10.0.0.0/8 is another peer's in line 6; leave it to one of them",
  ],
  [
    'an endpoint without a port',
    peer('Endpoint = 192.0.2.1'),
    65,
    `6: Endpoint is "192.0.2.1", not of the form ${FORM}`,
  ],
  [
    'an endpoint with an empty port',
    peer('Endpoint = 192.0.2.1:'),
    65,
    '6: Endpoint has a port that is "", not a number in 1..65535',
  ],
  [
    'an endpoint with port 0',
    peer('Endpoint = 192.0.2.1:0'),
    65,
    '6: Endpoint has a port that is "0", not a number in 1..65535',
  ],
  [
    'an endpoint with a port by name',
    peer('Endpoint = 192.0.2.1:https'),
    65,
    '6: Endpoint has a port that is "https", not a number in 1..65535',
  ],
  [
    'an IPv6 endpoint without brackets',
    peer('Endpoint = 2001:db8::1:51820'),
    65,
    `6: Endpoint is "2001:db8::1:51820"; put its IPv6 address in [ ], as in ${FORM}`,
  ],
  [
    'an endpoint with half a bracket',
    peer('Endpoint = [2001:db8::1:51820'),
    65,
    `6: Endpoint is "[2001:db8::1:51820", not of the form ${FORM}`,
  ],
  [
    'a bracketed name',
    peer('Endpoint = [office]:51820'),
    65,
    `6: Endpoint is "[office]:51820", neither an address nor a host name; write ${FORM}`,
  ],
  [
    'an endpoint that is nearly an address',
    peer('Endpoint = 10.0.0.300:51820'),
    65,
    `6: Endpoint is "10.0.0.300:51820", neither an address nor a host name; write ${FORM}`,
  ],
  [
    'an endpoint with a scheme',
    peer('Endpoint = udp://a.example:51820'),
    65,
    `6: Endpoint is "udp://a.example:51820"; put its IPv6 address in [ ], as in ${FORM}`,
  ],
  [
    'an endpoint that is no host',
    peer('Endpoint = 0.0.0.0:51820'),
    65,
    '6: Endpoint is "0.0.0.0:51820", which is no host\'s address; give the peer\'s own',
  ],
  [
    'a link-local endpoint of no interface',
    peer('Endpoint = [fe80::1]:51820'),
    65,
    '6: Endpoint is link-local; add its interface, as in [fe80::1%eth0]:51820',
  ],
  [
    'a global endpoint with an interface',
    peer('Endpoint = [2001:db8::1%eth0]:51820'),
    65,
    '6: Endpoint has an interface, which only a link-local address (fe80::) can have; remove it',
  ],
  [
    'an interface that is a path',
    peer('Endpoint = [fe80::1%../x]:51820'),
    65,
    '6: Endpoint has a zone that is no name of an interface',
  ],
  // What vpnctl does not do
  [
    'our own address as endpoint',
    peer('Endpoint = 10.0.0.2:51820'),
    78,
    '6: Endpoint 10.0.0.2 is our own Address; give the address at which the peer is reached from outside',
  ],
  [
    'an endpoint behind the tunnel',
    { own: ['Address = fd00::2/64'], peer: ['AllowedIPs = ::/0', 'Endpoint = [fd00::1]:51820'] },
    78,
    "7: Endpoint fd00::1 is behind the tunnel, in the network of our Address fd00::2/64; give the peer's outer address, or our Address a longer prefix",
  ],
  [
    'a routing table',
    own('Table = 51820'),
    78,
    '4: Table is neither auto nor off; routing tables belong to vpnd, so write one of these',
  ],
  [
    'a mark that is none',
    own('FwMark = 4294967296'),
    65,
    '4: FwMark is "4294967296", neither off nor a number in 0..0xffffffff',
  ],
  ['a mark in words', own('FwMark = main'), 65, '4: FwMark is "main", neither off nor a number in 0..0xffffffff'],
  ...['Jc', 'Jmin', 'Jmax', 'S1', 'S2', 'S3', 'S4', 'H1', 'H2', 'H3', 'H4', 'I1', 'I2', 'I3', 'I4', 'I5'].map(
    (key): Row => [`AmneziaWG's ${key}`, own(`${key} = 5`), 78, `4: ${key} ${AMNEZIA}`],
  ),
  ["AmneziaWG's peers", peer('AdvancedSecurity = on'), 78, `6: AdvancedSecurity ${AMNEZIA}`],
  ...(['PreUp', 'PostUp', 'PreDown', 'PostDown'] as const).map(
    (hook): Row => [
      hook,
      own(`${hook} = rm -rf /`),
      78,
      `4: ${hook} runs a command, which a file may not do by itself; remove it or use --allow-hooks`,
    ],
  ),
  [
    'SaveConfig',
    own('SaveConfig = true'),
    78,
    '4: SaveConfig would write over this file; remove it or use --allow-hooks',
  ],
  // Limits
  [
    '2001 addresses',
    { own: Array.from({ length: 2001 }, (_, n) => `Address = 10.1.${n >> 8}.${n & 255}/32`) },
    78,
    '2003: Address: vpnd takes at most 2000 of these; remove some',
  ],
  [
    '65 DNS servers',
    own(`DNS = ${Array.from({ length: 65 }, (_, n) => `10.1.1.${n + 1}`)}`),
    78,
    '4: DNS: vpnd takes at most 64 of these; remove some',
  ],
  [
    '65 search domains',
    own(...Array.from({ length: 65 }, (_, n) => `DNS = d${n}`)),
    78,
    '68: DNS: vpnd takes at most 64 of these; remove some',
  ],
];

for (const [what, given, code, said] of ROWS) {
  test(`bad content: ${what}`, () => {
    const text = typeof given === 'string' ? given : sampleText(given);
    assert.deepEqual(
      problemOf(() => parse(text)),
      { code, said: `office.conf:${said}` },
    );
  });
}

test('10001 allowed IPs are fine without routes', () => {
  const peer = Array.from({ length: 10_001 }, (_, n) => `AllowedIPs = 10.${n >> 8}.${n & 255}.0/24`);
  assert.equal(parse(sampleText({ own: [ADDRESS, 'Table = off'], peer })).peers[0]?.allowedIps.length, 10_001);
});

test('a file without a key says so, unless a command of it may set one', () => {
  const keyless = (...lines: string[]) => `[Interface]\n${ADDRESS}\n${lines.join('\n')}`;
  const missing = { code: 65, said: 'office.conf:1: [Interface] has no PrivateKey; `vpnctl wg genkey` makes one' };
  const command = 'PostUp = wg set %i private-key /etc/wireguard/office.key';
  for (const [text, hooks] of [
    [keyless(), false],
    [keyless(), true],
    [keyless('PostUp ='), true],
    [keyless('PreUp = true'), true],
  ] as const) {
    assert.deepEqual(
      problemOf(() => parse(text, hooks)),
      missing,
      text,
    );
  }
  assert.deepEqual(
    problemOf(() => parse(keyless(command))),
    {
      code: 78,
      said: 'office.conf:3: PostUp runs a command, which a file may not do by itself; remove it or use --allow-hooks',
    },
  );
  assert.equal(parse(keyless(command), true).interface.privateKey, undefined);
});

const folder = mkdtempSync(join(tmpdir(), 'quick-file-'));
after(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, content: string | Uint8Array = sampleText(), mode = 0o600): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  chmodSync(path, mode);
  return path;
}

const problemWith = (path: string, allowHooks = false) => problemOf(() => readQuickFile(path, { allowHooks }));

test('bad files: not there, not files, not text', async (t) => {
  execFileSync('mkfifo', [join(folder, 'fifo.conf')]);
  mkdirSync(join(folder, 'folder.conf'));
  symlinkSync('loop.conf', join(folder, 'loop.conf'));
  const server = createServer().listen(join(folder, 'socket.conf'));
  t.after(() => server.close());
  await new Promise((resolve) => server.once('listening', resolve));
  const rows: [path: string, code: number, said: string][] = [
    [join(folder, 'none.conf'), 66, ': there is no such file'],
    [join(file('plain.conf'), 'x.conf'), 66, ': there is no such file'],
    [join(folder, 'loop.conf'), 66, ': the file cannot be read (ELOOP)'],
    [join(folder, 'folder.conf'), 66, ': this is a folder; name a file'],
    [join(folder, 'fifo.conf'), 66, ': this is a FIFO; name a file'],
    [join(folder, 'socket.conf'), 66, ': this is a socket; name a file'],
    ['/dev/zero', 66, ': this is a device; name a file'],
    [file('large.conf', '#'.repeat((1 << 20) + 1)), 65, ': the file has more than 1 MiB; is it the right one?'],
    [file('full.conf', '#'.repeat(1 << 20)), 65, ':1: there is no [Interface] section; add one'],
    [file('empty.conf', ''), 65, ':1: there is no [Interface] section; add one'],
    [file('nul.conf', `${sampleText()}# a\n#\0`), 65, ':5: this line has a NUL byte; the file is no text, or damaged'],
    [file('nul-first.conf', '\0\n'), 65, ':1: this line has a NUL byte; the file is no text, or damaged'],
    [file('le.conf', Buffer.from(`\ufeff${sampleText()}`, 'utf16le')), 65, ':1: the file is UTF-16; save it as UTF-8'],
    [file('be.conf', Buffer.from([0xfe, 0xff, 0, 0x5b])), 65, ':1: the file is UTF-16; save it as UTF-8'],
    [
      file('latin1.conf', Buffer.from(`${sampleText()}DNS = caf\xe9`, 'latin1')),
      65,
      ':4: this line is not UTF-8; save the file as UTF-8',
    ],
  ];
  for (const [path, code, said] of rows) assert.deepEqual(problemWith(path), { code, said: `${path}${said}` });
  // A file that says it has no size is read all the same.
  assert.match(problemWith('/proc/self/cmdline')?.said ?? '', /:1: this line has a NUL byte/);
});

/** As a user who may read only what is everybody's; root itself may read everything. */
function asNobody<T>(work: () => T): T {
  if (process.geteuid?.() !== 0) return work();
  process.seteuid?.(65_534);
  try {
    return work();
  } finally {
    process.seteuid?.(0);
  }
}

test('a file that the caller may not read is 66', () => {
  chmodSync(folder, 0o755);
  const path = file('secret.conf', sampleText(), 0);
  const problem = asNobody(() => problemWith(path));
  assert.deepEqual(problem, { code: 66, said: `${path}: you may not read this file; change its owner or its mode` });
});

test('a path with control characters is printed as one line', () => {
  assert.equal(problemWith('/no/a\nb.conf')?.said, '"/no/a\\nb.conf": there is no such file');
});

test('comments may have any encoding, and CR LF and a byte order mark are fine in a file', () => {
  const text = Buffer.concat([Buffer.from('\ufeff# caf'), Buffer.from([0xe9, 0x0d, 0x0a]), Buffer.from(sampleText())]);
  assert.equal(readQuickFile(file('windows.conf', text), { allowHooks: false }).file.interface.line, 2);
});

test('a file that others may read or change is a warning', () => {
  const warnings = (mode: number) =>
    readQuickFile(file('modes.conf', sampleText(), mode), { allowHooks: false }).warnings;
  const path = join(folder, 'modes.conf');
  assert.deepEqual(warnings(0o600), []);
  assert.deepEqual(warnings(0o400), []);
  for (const [mode, may] of [
    [0o640, 'read'],
    [0o604, 'read'],
    [0o620, 'change'],
    [0o666, 'read and change'],
  ] as const) {
    const said = `${path}: warning: its mode 0${mode.toString(8)} lets others ${may} the private key; chmod 600 it`;
    assert.deepEqual(warnings(mode), [said]);
  }
});

test('commands of a file that others may write are never run', () => {
  const path = file('hooks.conf', sampleText(own('PostUp = true')), 0o620);
  const reason = "a command is not run, because the file's mode 0620 lets others write it; make it yours alone";
  assert.deepEqual(problemWith(path, true), { code: 78, said: `${path}:4: ${reason}` });
  chmodSync(path, 0o644);
  assert.equal(problemWith(path, true), undefined);
});

test('commands are run from files of the caller and of root only', {
  skip: process.geteuid?.() !== 0 && 'needs root',
}, () => {
  const path = file('owner.conf', sampleText(own('PostUp = true')), 0o644);
  const told = () => asNobody(() => problemWith(path, true));
  assert.equal(told(), undefined);
  chownSync(path, 65_534, 0);
  assert.equal(told(), undefined);
  chownSync(path, 65_533, 0);
  const reason = 'a command is not run, because the file belongs to somebody else; make it yours alone';
  assert.deepEqual(told(), { code: 78, said: `${path}:4: ${reason}` });
});
