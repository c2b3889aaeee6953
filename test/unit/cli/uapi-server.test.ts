import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startUapiServer, type UapiBackend } from '../../../src/cli/uapi-server.js';
import { MAX_UAPI_LINE_BYTES, UapiError } from '../../../src/tunnel/wireguard/uapi.js';

const { EINVAL, EIO, EADDRINUSE, EMSGSIZE, EPROTO } = constants.errno;

interface Served {
  /** What a client that sends this, and then waits for an answer, is told. */
  ask(...pieces: string[]): Promise<string>;
  path: string;
}

async function serve(t: TestContext, backend: Partial<UapiBackend>): Promise<Served> {
  const folder = mkdtempSync(join(tmpdir(), 'uapi-'));
  const get = async () => ({ privateKey: undefined, listenPort: 51820, fwmark: 0, peers: [] });
  const server = await startUapiServer(
    'vpn-tun0',
    folder,
    { fwmark: 0, get, set: async () => {}, ...backend },
    join(folder, 'none'),
  );
  t.after(() => {
    server.close();
    rmSync(folder, { recursive: true, force: true });
    assert.equal(existsSync(server.path), false);
  });
  const ask = async (...pieces: string[]) => {
    const client = connect(server.path);
    const closed = once(client, 'close');
    let answer = '';
    client.on('data', (data) => {
      answer += data;
    });
    for (const piece of pieces) {
      client.write(piece);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    client.end();
    await closed;
    return answer;
  };
  return { ask, path: server.path };
}

test('get and set are answered, several on one connection, in whatever pieces they come', async (t) => {
  const changes: unknown[] = [];
  const { ask } = await serve(t, { set: async ({ change, listenPort }) => void changes.push([change, listenPort]) });
  assert.equal(await ask('get=1\n\n'), 'listen_port=51820\nerrno=0\n\n');
  assert.equal(
    await ask('se', 't=1\nlisten_po', 'rt=7\n', '\nget=1\n\nset=1\nreplace_peers=true\n\n'),
    'errno=0\n\nlisten_port=51820\nerrno=0\n\nerrno=0\n\n',
  );
  assert.deepEqual(changes, [
    [{}, 7],
    [{ replacePeers: true }, undefined],
  ]);
});

test('what is wrong comes back as an errno, and the connection goes on', async (t) => {
  const { ask } = await serve(t, {
    set: async ({ listenPort }) => {
      if (listenPort === 1) throw new UapiError('EADDRINUSE', 'port 1');
      throw new Error('private_key=secret');
    },
  });
  assert.equal(await ask('set=1\ncolour=red\n\nget=1\n\n'), `errno=-${EINVAL}\n\nlisten_port=51820\nerrno=0\n\n`);
  assert.equal(await ask('set=1\nlisten_port=1\n\n'), `errno=-${EADDRINUSE}\n\n`);
  assert.equal(await ask('set=1\nlisten_port=2\n\n'), `errno=-${EIO}\n\n`);
  assert.equal(await ask('\n'), `errno=-${EPROTO}\n\n`);
});

test('a line without an end closes the connection, with its errno', async (t) => {
  const { ask } = await serve(t, {});
  assert.equal(await ask('x'.repeat(MAX_UAPI_LINE_BYTES + 1)), `errno=-${EMSGSIZE}\n\n`);
});

test('sets of one client are made one after the other', async (t) => {
  let running = 0;
  let most = 0;
  const { ask } = await serve(t, {
    set: async () => {
      most = Math.max(most, ++running);
      await new Promise((resolve) => setTimeout(resolve, 5));
      running--;
    },
  });
  assert.equal(await ask('set=1\n\n'.repeat(8)), 'errno=0\n\n'.repeat(8));
  assert.equal(most, 1);
});

test('a client that asks faster than it is answered waits', async (t) => {
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const { path } = await serve(t, { set: () => released });
  const client = connect(path).resume();
  const size = 8 << 20;
  client.write('set=1\n\n'.repeat(size / 7));
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.notEqual(client.writableLength, 0, 'all of it was read');
  release();
  client.destroy();
});
