/** What socket objects do to the life of a process: when it ends by itself, and what does not end it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

const socketUrl = new URL('../../../src/vpn/socket.js', import.meta.url).href;

function run(script: string): { status: number | null; stdout: string; stderr: string } {
  const source = `import * as socket from ${JSON.stringify(socketUrl)};\nimport net from 'node:net';\n${script}`;
  const options = { encoding: 'utf8', timeout: 60_000 } as const;
  return spawnSync(process.execPath, ['--input-type=module', '-e', source], options);
}

const refused = `{ address: { address: '127.0.0.1', port: 1 } }`;

test('a failed call whose promise is dropped does not end the process', () => {
  const { status, stdout, stderr } = run(`
    const tcp = socket.constructTCPSocketInstance();
    tcp.connect(${refused});
    tcp.send({ data: 'x' });
    tcp.bind({ address: '203.0.113.1' });
    setTimeout(() => console.log('alive'), 50);`);
  assert.deepEqual([status, stdout, stderr], [0, 'alive\n', '']);
});

test('who chains on the promise still sees the rejection, and an unhandled chain ends the process as usual', () => {
  const { status, stderr } = run(`
    const tcp = socket.constructTCPSocketInstance();
    tcp.connect(${refused}).then(() => {});`);
  assert.equal(status, 1);
  assert.match(stderr, /2301111/);
});

test('what a callback throws is an uncaught exception', () => {
  const { status, stderr } = run(`
    process.on('uncaughtException', (error) => { console.error('caught', error.message); process.exit(3); });
    socket.constructTCPSocketInstance().getSocketFd(() => { throw new Error('mine'); });`);
  assert.deepEqual([status, stderr], [3, 'caught mine\n']);
});

test('sockets that nobody listens to do not keep the process alive', () => {
  const { status } = run(`
    const server = net.createServer((peer) => peer.unref()).listen(0, '127.0.0.1', async () => {
      server.unref();
      const tcp = socket.constructTCPSocketInstance();
      await tcp.connect({ address: { address: '127.0.0.1', port: server.address().port } });
      await tcp.send({ data: 'x' });
      await socket.constructUDPSocketInstance().bind({ address: '127.0.0.1' });
    });`);
  assert.equal(status, 0);
});

test('a connection with a message listener keeps the process alive until the peer ends it', () => {
  const { status, stdout } = run(`
    const server = net.createServer((peer) => {
      peer.unref();
      setTimeout(() => peer.end('late'), 200).unref();
    }).listen(0, '127.0.0.1', async () => {
      server.unref();
      const tcp = socket.constructTCPSocketInstance();
      tcp.on('message', ({ message }) => console.log(Buffer.from(message).toString()));
      await tcp.connect({ address: { address: '127.0.0.1', port: server.address().port } });
    });`);
  assert.deepEqual([status, stdout], [0, 'late\n']);
});
