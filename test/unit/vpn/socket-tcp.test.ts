/** TCP socket objects against node's own server on loopback: one socket and one number from construction to close. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { test } from 'node:test';
import { libc } from '../../../src/kernel/ffi.js';
import { InetSocket } from '../../../src/kernel/inet-socket.js';
import { SOCK_STREAM, socketCookie } from '../../../src/kernel/socket-options.js';
import { BusinessError } from '../../../src/model/errors.js';
import * as socket from '../../../src/vpn/socket.js';

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const fds = (): number => readdirSync('/proc/self/fd').length;

async function listen(host: string, onConnection: (peer: Socket) => void): Promise<[Server, number]> {
  const server = createServer(onConnection).listen(0, host);
  await once(server, 'listening');
  return [server, (server.address() as AddressInfo).port];
}

/** A port on which nobody listens. */
async function closedPort(): Promise<number> {
  const [server, port] = await listen('127.0.0.1', () => {});
  server.close();
  await once(server, 'close');
  return port;
}

for (const address of ['127.0.0.1', '::1']) {
  test(`fd and SO_COOKIE stay the same through bind, connect, send and receive over ${address}, and close frees all`, async () => {
    const [server, port] = await listen(address, (peer) => peer.on('data', (data) => peer.write(`echo ${data}`)));
    const before = fds();
    const tcp = socket.constructTCPSocketInstance();
    const fd = await tcp.getSocketFd();
    const cookie = socketCookie(fd);
    const same = async (): Promise<void> => {
      assert.equal(await tcp.getSocketFd(), fd);
      assert.equal(socketCookie(fd), cookie);
    };
    await tcp.bind({ address: address === '::1' ? '::' : '0.0.0.0' });
    await same();
    const connecting = tcp.connect({ address: { address, port }, timeout: 6000 });
    await same();
    await connecting;
    await same();
    const message = new Promise<socket.SocketMessageInfo>((resolve) => tcp.on('message', resolve));
    await tcp.send({ data: 'hello' });
    const { message: bytes, remoteInfo } = await message;
    assert.equal(Buffer.from(bytes).toString(), 'echo hello');
    assert.deepEqual(remoteInfo, { address, family: address === '::1' ? 'IPv6' : 'IPv4', port, size: 10 });
    await same();
    await tcp.close();
    assert.equal(await tcp.getSocketFd(), -1);
    await tcp.close();
    server.close();
    await once(server, 'close');
    assert.ok(fds() <= before);
  });
}

test('bind takes effect before it returns: a second bind of the port fails with EADDRINUSE', async () => {
  const [server, port] = await listen('127.0.0.1', () => {});
  const tcp = socket.constructTCPSocketInstance();
  await assert.rejects(tcp.bind({ address: '127.0.0.1', port }), { name: 'BusinessError', code: 2301098 });
  server.close();
  await tcp.close();
});

test('a refused connect rejects with 2301111, keeps the socket, and the same socket connects again', async () => {
  const [server, port] = await listen('127.0.0.1', (peer) => peer.end('bye'));
  const tcp = socket.constructTCPSocketInstance();
  const fd = await tcp.getSocketFd();
  const cookie = socketCookie(fd);
  await assert.rejects(
    tcp.connect({ address: { address: '127.0.0.1', port: await closedPort() } }) as Promise<void>,
    (error: Error) => {
      assert.deepEqual(JSON.parse(JSON.stringify(error)).code, 2301111);
      assert.match(error.message, /^Connection refused\. .*ECONNREFUSED/);
      return true;
    },
  );
  for (let round = 0; round < 2; round++) {
    await tcp.connect({ address: { address: '127.0.0.1', port } });
    await new Promise<void>((resolve) => {
      const closed = (): void => {
        tcp.off('close', closed);
        resolve();
      };
      tcp.on('close', closed);
    });
    assert.equal(await tcp.getSocketFd(), fd);
    assert.equal(socketCookie(fd), cookie);
  }
  await tcp.close();
  server.close();
});

test('an attempt that nobody answers rejects with 2301110 after the timeout, and the same socket connects elsewhere', async () => {
  // A listener that accepts nothing: once its queue is full, loopback drops the SYNs too.
  const silent = new InetSocket(SOCK_STREAM);
  silent.bind({ address: '127.0.0.1', port: 0 });
  assert.equal(libc.listen(silent.fd, 0), 0);
  const name = Buffer.alloc(28);
  libc.getsockname(silent.fd, name, Buffer.from(Uint32Array.of(28).buffer));
  const endpoint = { address: '127.0.0.1', port: name.readUInt16BE(2) };
  const fillers = [new InetSocket(SOCK_STREAM), new InetSocket(SOCK_STREAM)];
  for (const filler of fillers) filler.connect(endpoint);
  // The kernel may be late with its own handshake: of a listener's queue it says how many are in it.
  const full = `0100007F:${endpoint.port.toString(16).toUpperCase().padStart(4, '0')} .* 0A 00000000:00000001 `;
  const isFull = () => new RegExp(full).test(readFileSync('/proc/net/tcp6', 'latin1'));
  for (let tries = 0; tries < 3000 && !isFull(); tries++) await sleep(10);
  assert.ok(isFull());

  const [server, port] = await listen('127.0.0.1', (peer) => peer.resume());
  const tcp = socket.constructTCPSocketInstance();
  const fd = await tcp.getSocketFd();
  const cookie = socketCookie(fd);
  const attempt = tcp.connect({ address: endpoint, timeout: 50 });
  await assert.rejects(tcp.connect({ address: endpoint }), { code: 2301114 });
  await assert.rejects(attempt, { code: 2301110 });
  await tcp.connect({ address: { address: '127.0.0.1', port } });
  assert.equal(await tcp.getSocketFd(), fd);
  assert.equal(socketCookie(fd), cookie);
  await tcp.close();
  for (const each of [silent, ...fillers]) each.close();
  server.close();
});

test('callback form: undefined and the data on success, the error on failure, never re-entrantly', async () => {
  const port = await closedPort();
  const tcp = socket.constructTCPSocketInstance();
  const fd = await new Promise((resolve, reject) => {
    let returned = false;
    assert.equal(
      tcp.getSocketFd((error, data) => (returned && error === undefined ? resolve(data) : reject(error))),
      undefined,
    );
    returned = true;
  });
  assert.ok(typeof fd === 'number' && fd > 2);
  const error = await new Promise<BusinessError>((resolve) => {
    tcp.connect({ address: { address: '127.0.0.1', port } }, resolve);
  });
  assert.equal(error.code, 2301111);
  await tcp.close();
});

test('close during connect rejects the connect with 2301009', async () => {
  const [server, port] = await listen('127.0.0.1', () => {});
  const tcp = socket.constructTCPSocketInstance();
  const connecting = tcp.connect({ address: { address: '127.0.0.1', port } });
  await tcp.close();
  await assert.rejects(connecting, { code: 2301009 });
  await assert.rejects(tcp.bind({ address: '0.0.0.0' }), { code: 2301009 });
  await assert.rejects(tcp.send({ data: '' }), { code: 2301009 });
  server.close();
});

test('send before connect is 2301107; a second connect while connected is 2301106', async () => {
  const [server, port] = await listen('127.0.0.1', (peer) => peer.resume());
  const tcp = socket.constructTCPSocketInstance();
  await assert.rejects(tcp.send({ data: 'x' }), { code: 2301107 });
  await tcp.connect({ address: { address: '127.0.0.1', port } });
  await assert.rejects(tcp.connect({ address: { address: '127.0.0.1', port } }), { code: 2301106 });
  await tcp.send({ data: new Uint8Array(1 << 20) });
  await tcp.close();
  server.close();
});

test('nothing is lost between connect and the first message listener', async () => {
  const [server, port] = await listen('127.0.0.1', (peer) => peer.end('early'));
  const tcp = socket.constructTCPSocketInstance();
  await tcp.connect({ address: { address: '127.0.0.1', port } });
  await sleep(50);
  const message = await new Promise<socket.SocketMessageInfo>((resolve) => tcp.on('message', resolve));
  assert.equal(Buffer.from(message.message).toString(), 'early');
  await tcp.close();
  server.close();
});

test('arguments of a wrong type or shape are 401, thrown', () => {
  const tcp = socket.constructTCPSocketInstance();
  const loose = tcp as unknown as Record<string, (...values: unknown[]) => unknown>;
  const address = { address: '127.0.0.1', port: 1 };
  const calls: [string, ...unknown[]][] = [
    ['bind'],
    ['bind', null],
    ['bind', { address: 'localhost' }],
    ['bind', { address: '010.0.0.1' }],
    ['bind', { address: 'fe80::1%lo' }],
    ['bind', { address: '127.0.0.1', family: 2 }],
    ['bind', { address: '127.0.0.1', port: 65536 }],
    ['bind', { address: '127.0.0.1' }, null],
    ['bind', { address: '127.0.0.1' }, undefined, 1],
    ['connect', {}],
    ['connect', { address: { address: '127.0.0.1' } }],
    ['connect', { address, timeout: -1 }],
    ['connect', { address, timeout: '1' }],
    ['send', { data: 1 }],
    ['send', { data: '', encoding: 'klingon' }],
    ['getSocketFd', 1],
    ['on', 'data', () => {}],
    ['on', 'message'],
    ['off', 'message', 1],
  ];
  for (const [name, ...values] of calls) {
    assert.throws(() => loose[name]?.(...values), BusinessError, `${name}(${JSON.stringify(values)})`);
  }
  assert.equal(JSON.stringify(tcp), '{}');
  void tcp.close();
});
