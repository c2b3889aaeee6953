/** Requests and answers as https://www.wireguard.com/xplatform/ has them; `wg` lines are what wg(8) of wireguard-tools 1.0 sends. */
import assert from 'node:assert/strict';
import { constants } from 'node:os';
import test from 'node:test';
import fc from 'fast-check';
import {
  MAX_UAPI_LINE_BYTES,
  MAX_UAPI_REQUEST_BYTES,
  parseUapiRequest,
  printUapiDevice,
  printUapiErrno,
  type UapiDevice,
  UapiError,
  UapiReader,
} from '../../../../src/tunnel/wireguard/uapi.js';

const KEY = 'e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a';
const PEER = 'b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33';
const ZERO = '0'.repeat(64);
const { EINVAL, EPROTO, EOPNOTSUPP, EMSGSIZE } = constants.errno;

function bytes(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'));
}

function set(...lines: string[]) {
  const request = parseUapiRequest(['set=1', ...lines].join('\n'));
  assert.equal(request.operation, 'set');
  return request as typeof request & { operation: 'set' };
}

/** Everything that parseUapiRequest() may do with a text: give a request or throw its own error. */
function tryParse(text: string): number {
  try {
    parseUapiRequest(text, () => 3);
    return 0;
  } catch (error) {
    assert.ok(error instanceof UapiError, String(error));
    return error.errno;
  }
}

test('parseUapiRequest() takes the example of the standard', () => {
  const { change, listenPort } = set(
    `private_key=${KEY}`,
    'fwmark=0',
    'listen_port=12912',
    'replace_peers=true',
    `public_key=${PEER}`,
    `preshared_key=188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52`,
    'replace_allowed_ips=true',
    'allowed_ip=192.168.4.4/32',
    'endpoint=[abcd:23::33%2]:51820',
    'public_key=58402e695ba1772b1cc9309755f043251ea77fdcf10fbe63989ceb7e19321376',
    'replace_allowed_ips=true',
    'allowed_ip=192.168.4.6/32',
    'persistent_keepalive_interval=111',
    'endpoint=182.122.22.19:3233',
    'public_key=662e14fd594556f522604703340351258903b64f35553763f19426ab2a515c58',
    'endpoint=5.152.198.39:51820',
    'replace_allowed_ips=true',
    'allowed_ip=192.168.4.10/32',
    'allowed_ip=192.168.4.11/32',
    'public_key=e818b58db5274087fcc1be5dc728cf53d3b5726b4cef6b9bab8f8f8c2452c25c',
    'remove=true',
  );
  assert.equal(listenPort, 12912);
  assert.deepEqual(change, {
    privateKey: bytes(KEY),
    replacePeers: true,
    peers: [
      {
        publicKey: bytes(PEER),
        presharedKey: bytes('188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52'),
        replaceAllowedIps: true,
        allowedIps: ['192.168.4.4/32'],
        endpoint: { address: 'abcd:23::33', port: 51820, scopeId: 2 },
      },
      {
        publicKey: bytes('58402e695ba1772b1cc9309755f043251ea77fdcf10fbe63989ceb7e19321376'),
        replaceAllowedIps: true,
        allowedIps: ['192.168.4.6/32'],
        persistentKeepaliveSeconds: 111,
        endpoint: { address: '182.122.22.19', port: 3233 },
      },
      {
        publicKey: bytes('662e14fd594556f522604703340351258903b64f35553763f19426ab2a515c58'),
        endpoint: { address: '5.152.198.39', port: 51820 },
        replaceAllowedIps: true,
        allowedIps: ['192.168.4.10/32', '192.168.4.11/32'],
      },
      { publicKey: bytes('e818b58db5274087fcc1be5dc728cf53d3b5726b4cef6b9bab8f8f8c2452c25c'), remove: true },
    ],
  });
});

test('the mark that the socket has is shown, and taken back; another is refused', () => {
  const device = { privateKey: undefined, listenPort: 7, fwmark: 0x80000000, peers: [] };
  assert.equal(printUapiDevice(device), 'listen_port=7\nfwmark=2147483648\nerrno=0\n\n');
  const set = (mark: number) => parseUapiRequest(`set=1\nfwmark=${mark}`, undefined, 0x80000000);
  for (const mark of [0, 0x80000000]) assert.deepEqual(set(mark), { operation: 'set', change: {} });
  assert.throws(() => set(7), { errno: EOPNOTSUPP });
});

test('parseUapiRequest() takes what wg(8) sends', () => {
  assert.deepEqual(parseUapiRequest('get=1'), { operation: 'get' });
  // wg setconf of a file without peers; wg set wg0 peer ... remove
  assert.deepEqual(set(`private_key=${KEY}`, 'listen_port=0', 'fwmark=0', 'replace_peers=true').listenPort, 0);
  assert.deepEqual(set(`public_key=${PEER}`, 'remove=true').change, {
    peers: [{ publicKey: bytes(PEER), remove: true }],
  });
  // An all-zero key takes one away: that is the device's to know.
  assert.deepEqual(set(`private_key=${ZERO}`).change.privateKey, new Uint8Array(32));
  assert.deepEqual(set(`public_key=${PEER}`, 'update_only=true', 'protocol_version=1').change.peers, [
    { publicKey: bytes(PEER), updateOnly: true },
  ]);
  assert.deepEqual(set().change, {});
});

test('parseUapiRequest() gives allowed IPs and takes them away, and the later line counts', () => {
  const of = (...lines: string[]) => set(`public_key=${PEER}`, ...lines).change.peers?.[0];
  assert.deepEqual(of('allowed_ip=10.1.2.3/8', 'allowed_ip=2001:DB8::1/32'), {
    publicKey: bytes(PEER),
    allowedIps: ['10.0.0.0/8', '2001:db8::/32'],
  });
  assert.deepEqual(of('allowed_ip=10.0.0.0/8', 'allowed_ip=-10.9.9.9/8'), {
    publicKey: bytes(PEER),
    allowedIps: [],
    removeAllowedIps: ['10.0.0.0/8'],
  });
  assert.deepEqual(of('allowed_ip=-10.0.0.0/8', 'allowed_ip=10.0.0.0/8'), {
    publicKey: bytes(PEER),
    removeAllowedIps: ['10.0.0.0/8'],
    allowedIps: ['10.0.0.0/8'],
  });
  assert.deepEqual(of('allowed_ip=10.0.0.0/8', 'replace_allowed_ips=true', 'allowed_ip=::/0')?.allowedIps, ['::/0']);
});

test('parseUapiRequest() finds the interface of a link-local endpoint by name or number', () => {
  const endpoint = (value: string) =>
    parseUapiRequest(`set=1\npublic_key=${PEER}\nendpoint=${value}`, (name) => (name === 'eth0' ? 7 : undefined));
  const scopeOf = (value: string) => {
    const request = endpoint(value);
    return request.operation === 'set' ? request.change.peers?.[0]?.endpoint?.scopeId : undefined;
  };
  assert.equal(scopeOf('[fe80::1%eth0]:1'), 7);
  assert.equal(scopeOf('[fe80::1%12]:1'), 12);
  assert.throws(() => endpoint('[fe80::1%eth1]:1'), { errno: EINVAL });
});

test('parseUapiRequest() says what is wrong by errno, and never repeats a value', () => {
  const secret = KEY.slice(0, 63);
  const bad: [errno: number, lines: string[]][] = [
    [EPROTO, ['']],
    [EPROTO, ['get=2']],
    [EPROTO, ['get=1', 'private_key=']],
    [EPROTO, ['set=2']],
    [EPROTO, ['private_key=1']],
    [EPROTO, ['set=1', 'private_key']],
    [EINVAL, ['set=1', `private_key=${secret}`]],
    [EINVAL, ['set=1', `private_key=${secret}g`]],
    [EINVAL, ['set=1', `Private_key=${KEY}`]],
    [EINVAL, ['set=1', 'private_key=']],
    [EINVAL, ['set=1', 'listen_port=65536']],
    [EINVAL, ['set=1', 'listen_port=-1']],
    [EINVAL, ['set=1', 'listen_port=1e3']],
    [EINVAL, ['set=1', 'listen_port=']],
    [EOPNOTSUPP, ['set=1', 'fwmark=51820']],
    [EOPNOTSUPP, ['set=1', 'fwmark=2147483648']],
    [EINVAL, ['set=1', 'fwmark=4294967296']],
    [EINVAL, ['set=1', 'replace_peers=false']],
    [EINVAL, ['set=1', 'remove=true']],
    [EINVAL, ['set=1', 'allowed_ip=10.0.0.0/8']],
    [EINVAL, ['set=1', `public_key=${PEER}`, 'listen_port=1']],
    [EINVAL, ['set=1', `public_key=${PEER}`, 'private_key=']],
    [EINVAL, ['set=1', `public_key=${PEER}`, `preshared_key=${secret}`]],
    [EINVAL, ['set=1', `public_key=${PEER}`, 'remove=yes']],
    [EINVAL, ['set=1', `public_key=${PEER}`, 'protocol_version=2']],
    [EINVAL, ['set=1', `public_key=${PEER}`, 'persistent_keepalive_interval=65536']],
    [EINVAL, ['set=1', `public_key=${PEER}`, 'colour=red']],
    ...['10.0.0.0', '10.0.0.0/33', '010.0.0.0/8', '::/129', '::1%1/128', '10.0.0.0/8/8', '/8', '', '--::/0'].map(
      (value): [number, string[]] => [EINVAL, ['set=1', `public_key=${PEER}`, `allowed_ip=${value}`]],
    ),
    ...[
      '10.0.0.1',
      '10.0.0.1:0',
      '10.0.0.1:65536',
      '[10.0.0.1]:1',
      '::1:1',
      '2001:db8::1:51820',
      '[::1]',
      '[::1%]:1',
      '[::1%x]:1',
      'example.org:51820',
      '10.0.0.1:1 ',
      '10.0.0.1%1:1',
    ].map((value): [number, string[]] => [EINVAL, ['set=1', `public_key=${PEER}`, `endpoint=${value}`]]),
  ];
  for (const [errno, lines] of bad) {
    assert.throws(
      () => parseUapiRequest(lines.join('\n')),
      (error: unknown) => error instanceof UapiError && error.errno === errno && !error.message.includes(secret),
      lines.join(' '),
    );
  }
});

test('parseUapiRequest() throws nothing but its own error, whatever it is given', () => {
  const whole = `set=1\nprivate_key=${KEY}\npublic_key=${PEER}\nendpoint=[fe80::1%eth0]:51820\nallowed_ip=::/0\n`;
  for (let length = 0; length <= whole.length; length++) tryParse(whole.slice(0, length));
  const word = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 80 }),
    fc.constantFrom('set=1', 'get=1', `public_key=${PEER}`, 'endpoint=', 'allowed_ip=', 'listen_port=', 'remove=true'),
  );
  fc.assert(fc.property(fc.array(word), (words) => void tryParse(words.join('\n'))));
  fc.assert(fc.property(fc.array(word), (words) => void tryParse(`set=1\n${words.join('')}`)));
});

const key = fc.uint8Array({ minLength: 32, maxLength: 32 });
const port = fc.integer({ min: 1, max: 65_535 });
const prefix = fc.oneof(
  fc.tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 8, max: 32 })).map(([a, n]) => `${a}.0.0.0/${n}`),
  fc
    .tuple(fc.integer({ min: 1, max: 0xffff }), fc.integer({ min: 16, max: 128 }))
    .map(([a, n]) => `${a.toString(16)}::/${n}`),
);
const device: fc.Arbitrary<UapiDevice> = fc.record({
  privateKey: fc.option(key, { nil: undefined }),
  listenPort: port,
  fwmark: fc.constant(0),
  peers: fc.array(
    fc.record({
      publicKey: key,
      hasPresharedKey: fc.constant(true),
      presharedKey: fc.option(key, { nil: undefined }),
      endpoint: fc.oneof(
        fc.tuple(fc.constantFrom('192.0.2.1', '2001:db8::1'), port).map(([address, port]) => ({ address, port })),
        fc
          .tuple(port, fc.integer({ min: 1, max: 99 }))
          .map(([port, scopeId]) => ({ address: 'fe80::1', port, scopeId })),
      ),
      lastHandshakeMs: fc.nat(),
      receivedBytes: fc.maxSafeNat(),
      sentBytes: fc.maxSafeNat(),
      persistentKeepaliveSeconds: fc.integer({ min: 0, max: 65_535 }),
      allowedIps: fc.array(prefix),
    }),
  ),
});

/** Lines of an answer that a request does not have. */
const ANSWER_ONLY = /^(last_handshake_time_|tx_bytes|rx_bytes|errno)/;

test('what printUapiDevice() prints, parseUapiRequest() reads', () => {
  fc.assert(
    fc.property(device, (given) => {
      const lines = printUapiDevice(given).split('\n');
      const { change, listenPort } = set(...lines.filter((line) => line !== '' && !ANSWER_ONLY.test(line)));
      assert.equal(listenPort, given.listenPort);
      assert.deepEqual(change.privateKey, given.privateKey);
      assert.deepEqual(
        change.peers ?? [],
        given.peers.map((peer) => ({
          publicKey: peer.publicKey,
          ...(peer.presharedKey && { presharedKey: peer.presharedKey }),
          endpoint: peer.endpoint,
          persistentKeepaliveSeconds: peer.persistentKeepaliveSeconds,
          ...(peer.allowedIps.length > 0 && { allowedIps: peer.allowedIps }),
        })),
      );
    }),
  );
});

test('printUapiDevice() prints the lines of the standard, an errno and an empty line', () => {
  const peer = {
    publicKey: bytes(PEER),
    hasPresharedKey: false,
    endpoint: { address: '2001:db8::1', port: 51820 },
    lastHandshakeMs: 1_700_000_000_250,
    receivedBytes: 2224,
    sentBytes: 38333,
    persistentKeepaliveSeconds: 25,
    allowedIps: ['192.168.4.4/32', '::/0'],
  };
  assert.equal(
    printUapiDevice({ privateKey: bytes(KEY), listenPort: 12912, fwmark: 0, peers: [peer] }),
    `private_key=${KEY}
listen_port=12912
public_key=${PEER}
protocol_version=1
endpoint=[2001:db8::1]:51820
last_handshake_time_sec=1700000000
last_handshake_time_nsec=250000000
tx_bytes=38333
rx_bytes=2224
persistent_keepalive_interval=25
allowed_ip=192.168.4.4/32
allowed_ip=::/0
errno=0

`,
  );
  assert.equal(
    printUapiDevice({ privateKey: undefined, listenPort: 1, fwmark: 0, peers: [] }),
    'listen_port=1\nerrno=0\n\n',
  );
  assert.equal(printUapiErrno(EINVAL), 'errno=-22\n\n');
});

test('UapiReader finds the same requests wherever the stream is cut', () => {
  const requests = ['get=1\n', `set=1\nprivate_key=${KEY}\n`, '', 'get=1\n'];
  const stream = Buffer.from(requests.map((each) => `${each}\n`).join(''));
  for (let cut = 0; cut <= stream.length; cut++) {
    const reader = new UapiReader();
    assert.deepEqual([...reader.push(stream.subarray(0, cut)), ...reader.push(stream.subarray(cut))], requests);
  }
  const reader = new UapiReader();
  assert.deepEqual(
    [...stream].flatMap((byte) => reader.push(Uint8Array.of(byte))),
    requests,
  );
});

test('UapiReader refuses lines and requests that are too long, in whatever pieces they come', () => {
  const tooLong = (error: unknown) => error instanceof UapiError && error.errno === EMSGSIZE;
  const line = 'x'.repeat(MAX_UAPI_LINE_BYTES);
  assert.deepEqual(new UapiReader().push(Buffer.from(`${line}\n\n`)), [`${line}\n`]);
  assert.throws(() => new UapiReader().push(Buffer.from(`${line}x`)), tooLong);
  const inPieces = new UapiReader();
  assert.throws(() => [...`${line}x`].forEach((letter) => void inPieces.push(Buffer.from(letter))), tooLong);
  const lines = Buffer.from(`${'y'.repeat(127)}\n`.repeat(512));
  const reader = new UapiReader();
  for (let sent = 0; sent + lines.length <= MAX_UAPI_REQUEST_BYTES; sent += lines.length) reader.push(lines);
  assert.throws(() => reader.push(lines), tooLong);
});
