/**
 * packets() over a SOCK_SEQPACKET pair, which keeps packet boundaries as a TUN does and needs no privilege. The TUN itself
 * is in test/lab/tunnel.test.ts.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { libc } from '../../../src/kernel/ffi.js';
import { packets } from '../../../src/tunnel/index.js';

const AF_UNIX = 1;
const SOCK_SEQPACKET = 5;
const SOCK_NONBLOCK = 0o4000;

function pair(blocking: boolean): [near: number, far: number] {
  const fds = Buffer.alloc(8);
  assert.equal(libc.socketpair(AF_UNIX, SOCK_SEQPACKET | (blocking ? 0 : SOCK_NONBLOCK), 0, fds), 0);
  return [fds.readInt32LE(0), fds.readInt32LE(4)];
}

function put(fd: number, text: string): void {
  assert.equal(libc.write(fd, Buffer.from(text), text.length), text.length);
}

for (const blocking of [true, false]) {
  const kind = blocking ? 'a blocking fd' : 'a non-blocking fd';

  test(`packets() yields one packet a read from ${kind} and ends when the device is gone`, async () => {
    const [near, far] = pair(blocking);
    const stream = packets(near);
    libc.close(near);
    const sent = Array.from({ length: 200 }, (_, index) => `packet ${index} ${'x'.repeat(index)}`);
    const received: string[] = [];
    const reading = (async () => {
      for await (const packet of stream) received.push(Buffer.from(packet).toString());
    })();
    for (const text of sent) {
      put(far, text);
      if (text.length % 7 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await until(() => received.length === sent.length);
    libc.close(far);
    await reading;
    assert.deepEqual(received, sent);
    assert.equal(stream.counters.read, sent.length);
  });

  test(`close() ends an iteration that waits on ${kind} and leaves the caller's fd open`, async () => {
    const [near, far] = pair(blocking);
    const stream = packets(near);
    const reading = (async () => {
      for await (const packet of stream) assert.fail(`${packet}`);
    })();
    await new Promise((resolve) => setTimeout(resolve, 50));
    await stream.close();
    await stream.close();
    await reading;
    put(near, 'still open');
    assert.equal(stream.write(Buffer.from('closed')), false);
    libc.close(near);
    libc.close(far);
  });
}

test('break closes the stream; a second iteration is refused while one runs', async () => {
  const [near, far] = pair(false);
  const stream = packets(near);
  put(far, 'one');
  for await (const packet of stream) {
    assert.equal(Buffer.from(packet).toString(), 'one');
    await assert.rejects(async () => {
      for await (const _ of stream) assert.fail('two readers');
    }, /one iteration at a time/);
    break;
  }
  for await (const _ of stream) assert.fail('closed');
  libc.close(near);
  libc.close(far);
});

test('write() sends one packet a call, and counts instead of throwing when the kernel refuses', () => {
  const [near, far] = pair(false);
  const stream = packets(near);
  assert.equal(stream.write(Buffer.from('hello')), true);
  const buffer = Buffer.alloc(128);
  assert.equal(libc.read(far, buffer, 128), 5);
  let refused = 0;
  while (stream.write(Buffer.alloc(1024))) assert.ok(++refused < 100_000);
  assert.equal(stream.counters.rejected, 1);
  libc.close(near);
  libc.close(far);
  return stream.close();
});

test('a consumer that does not take batches stops the reading, not the process', async () => {
  const [near, far] = pair(false);
  const stream = packets(near);
  const iterator = stream[Symbol.asyncIterator]();
  put(far, 'first');
  await iterator.next();
  let written = 0;
  const deadline = Date.now() + 10_000;
  for (let full = 0; full < 20 && Date.now() < deadline; ) {
    if (libc.write(far, Buffer.alloc(4096), 4096) > 0) {
      written++;
      full = 0;
    } else {
      full++;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
  assert.ok(written * 4096 < 64 * 1024 * 1024, `${written} packets were buffered`);
  await stream.close();
  libc.close(near);
  libc.close(far);
});

test('packets() of no fd throws a KernelError', () => {
  assert.throws(() => packets(-1), { name: 'KernelError' });
});

const PROGRAM = `
  import { libc } from '${new URL('../../../src/kernel/ffi.js', import.meta.url)}';
  import { packets } from '${new URL('../../../src/tunnel/index.js', import.meta.url)}';
  const fds = Buffer.alloc(128);
  libc.socketpair(${AF_UNIX}, ${SOCK_SEQPACKET}, 0, fds);
  const stream = packets(fds.readInt32LE(0));
  const reading = (async () => { for await (const _ of stream); })();
`;
for (const [name, ending, status] of [
  ['process.exit()', 'process.exit(3);', 3],
  ['process.exit() after the thread waits', 'setTimeout(() => process.exit(3), 300);', 3],
  ['an uncaught throw', 'setTimeout(() => { throw new Error("boom"); }, 200);', 1],
  ['close()', 'setTimeout(() => stream.close(), 200); reading.then(() => console.log("done"));', 0],
] as const) {
  test(`a process that waits for packets ends on ${name}`, () => {
    const child = spawnSync(process.execPath, ['--input-type=module', '-e', PROGRAM + ending], {
      timeout: 60_000,
      encoding: 'utf8',
    });
    assert.equal(child.status, status, child.stderr);
  });
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!condition()) {
    assert.ok(Date.now() < deadline, 'timed out');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
