/** UDP socket objects against each other on loopback: one socket and one number from construction to close. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { libc } from '../../../src/kernel/ffi.js';
import { socketCookie } from '../../../src/kernel/socket-options.js';
import * as socket from '../../../src/vpn/socket.js';

const fds = (): number => readdirSync('/proc/self/fd').length;

function localPort(fd: number): number {
  const address = Buffer.alloc(128);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(address.length);
  assert.equal(libc.getsockname(fd, address, length), 0);
  return address.readUInt16BE(2);
}

const message = (udp: socket.UDPSocket): Promise<socket.SocketMessageInfo> =>
  new Promise((resolve) => udp.on('message', resolve));

for (const address of ['127.0.0.1', '::1']) {
  test(`fd and SO_COOKIE stay the same through bind, send and receive over ${address}, and close frees all`, async () => {
    const before = fds();
    const [near, far] = [socket.constructUDPSocketInstance(), socket.constructUDPSocketInstance()];
    const nearFd = await near.getSocketFd();
    const cookie = socketCookie(nearFd);
    void far.bind({ address });
    const port = localPort(await far.getSocketFd());
    assert.notEqual(port, 0, 'bind had taken effect when it returned');
    const received = message(far);
    await near.send({ data: 'hello', address: { address, port } });
    const { message: bytes, remoteInfo } = await received;
    assert.equal(Buffer.from(bytes).toString(), 'hello');
    const family = address === '::1' ? 'IPv6' : 'IPv4';
    assert.deepEqual(remoteInfo, { address, family, port: localPort(nearFd), size: 5 });
    const answer = message(near);
    await far.send({ data: new Uint8Array([1, 2]).buffer, address: { address, port: remoteInfo.port } });
    assert.deepEqual([...new Uint8Array((await answer).message)], [1, 2]);
    near.off('message');
    assert.equal(await near.getSocketFd(), nearFd);
    assert.equal(socketCookie(nearFd), cookie);
    await near.close();
    await far.close();
    assert.equal(await near.getSocketFd(), -1);
    assert.ok(fds() <= before);
  });
}

test('datagrams wait in the kernel until somebody listens', async () => {
  const [near, far] = [socket.constructUDPSocketInstance(), socket.constructUDPSocketInstance()];
  await far.bind({ address: '127.0.0.1' });
  const port = localPort(await far.getSocketFd());
  await near.send({ data: 'early', address: { address: '127.0.0.1', port } });
  assert.equal(Buffer.from((await message(far)).message).toString(), 'early');
  await near.close();
  await far.close();
});

test('listening and close are told to listeners, and every call after close is 2301009', async () => {
  const udp = socket.constructUDPSocketInstance();
  const told: string[] = [];
  udp.on('listening', () => told.push('listening'));
  udp.on('close', () => told.push('close'));
  await udp.bind({ address: '0.0.0.0' });
  await udp.close();
  await udp.close();
  await new Promise(setImmediate);
  assert.deepEqual(told, ['listening', 'close']);
  await assert.rejects(udp.bind({ address: '0.0.0.0' }), { code: 2301009 });
  await assert.rejects(udp.send({ data: '', address: { address: '127.0.0.1', port: 9 } }), { code: 2301009 });
});
