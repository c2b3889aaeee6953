import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { saveConfig, withDevice } from '../../../src/cli/save-config.js';
import { printQuickFile } from '../../../src/cli/wireguard/quick-print.js';
import type { UapiDevice } from '../../../src/tunnel/wireguard/uapi.js';
import { ALICE_PRIVATE, BOB, CAROL, parse, sampleText } from './wireguard/lib/samples.js';

const key = (base64: string) => new Uint8Array(Buffer.from(base64, 'base64'));
const OWN = ['Address = 10.0.0.2/32', 'MTU = 1400', 'PostUp = echo %i', 'SaveConfig = true'];
const FILE = parse(sampleText({ own: OWN, peer: ['Endpoint = wg.example.org:51820', 'AllowedIPs = ::/0'] }), true);

const peer = {
  publicKey: key(BOB),
  hasPresharedKey: true,
  presharedKey: key(CAROL),
  endpoint: { address: '192.0.2.1', port: 51820 },
  lastHandshakeMs: 1,
  receivedBytes: 1,
  sentBytes: 1,
  persistentKeepaliveSeconds: 25,
  allowedIps: ['10.0.0.0/8', '2001:db8::/32'],
};
const DEVICE: UapiDevice = {
  privateKey: key(ALICE_PRIVATE),
  listenPort: 4444,
  fwmark: 0,
  peers: [
    peer,
    { ...peer, publicKey: key(CAROL), presharedKey: undefined, endpoint: { address: 'fe80::1', port: 7, scopeId: 3 } },
  ],
};

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), 'save-'));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

test('withDevice() keeps what is the file’s and takes what is the device’s', () => {
  assert.equal(
    printQuickFile(withDevice(FILE, DEVICE)),
    `[Interface]
PrivateKey = ${ALICE_PRIVATE}
ListenPort = 4444
Address = 10.0.0.2/32
MTU = 1400
PostUp = echo %i
SaveConfig = true

[Peer]
PublicKey = ${BOB}
PresharedKey = ${CAROL}
AllowedIPs = 10.0.0.0/8, 2001:db8::/32
Endpoint = wg.example.org:51820
PersistentKeepalive = 25

[Peer]
PublicKey = ${CAROL}
AllowedIPs = 10.0.0.0/8, 2001:db8::/32
Endpoint = [fe80::1%3]:7
PersistentKeepalive = 25
`,
  );
  assert.throws(() => withDevice(FILE, { ...DEVICE, privateKey: undefined }), /no private key/);
});

test('saveConfig() puts a file of mode 0600 in place of the old one, behind a symbolic link too', (t) => {
  const inside = folder(t);
  const [path, link] = [join(inside, 'office.conf'), join(inside, 'link.conf')];
  writeFileSync(path, '# old', { mode: 0o644 });
  symlinkSync(path, link);
  const before = statSync(path).ino;
  saveConfig(link, FILE);
  assert.equal(readFileSync(path, 'utf8'), printQuickFile(FILE));
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.notEqual(statSync(path).ino, before, 'a reader sees the old file or the new one, never half of one');
  assert.deepEqual(readdirSync(inside), ['link.conf', 'office.conf']);
});

test('saveConfig() that cannot be done leaves what was', (t) => {
  const inside = folder(t);
  const path = join(inside, 'office.conf');
  assert.throws(() => saveConfig(path, FILE), { code: 'ENOENT' });
  writeFileSync(path, '# old');
  // Somebody else's, perhaps: it is neither written to nor removed.
  writeFileSync(`${path}.${process.pid}.tmp`, '# precious');
  assert.throws(() => saveConfig(path, FILE), { code: 'EEXIST' });
  assert.equal(readFileSync(path, 'utf8'), '# old');
  assert.equal(readFileSync(`${path}.${process.pid}.tmp`, 'utf8'), '# precious');
});
