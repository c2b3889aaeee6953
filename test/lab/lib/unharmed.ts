/** A service under attack: one host without any link, a vpnd that logs everything, and the proof that it took no harm. */
import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { libc } from '../../../src/kernel/ffi.js';
import { socketMark } from '../../../src/kernel/socket-options.js';
import { canonicalState } from './canonical-state.js';
import type { LabHost } from './host.js';
import { Lab } from './lab.js';
import { type Identity, RawClient, udpSocketIn } from './raw-client.js';
import { eventually, stateBecomes } from './settled-state.js';
import { startVpnd, type Vpnd } from './vpnd.js';

/** A user whom the policy allows, and one whom it does not. */
export const CALLER: Identity = { uid: 2001, gid: 2001 };
export const STRANGER: Identity = { uid: 4001, gid: 4001 };
export const CONFIG = { addresses: [{ address: { address: '10.0.0.5' }, prefixLength: 24 }] };

const BYPASS = 0x80000000;
/** Of a log line: event, a few fields, one value of somebody else's that is cut. */
const LINE_CHARACTERS = 700;

export interface Target {
  app: LabHost;
  vpnd: Vpnd;
  connect(identity?: Identity, options?: { isDeaf?: boolean }): RawClient;
  /** Descriptors, host state and log are as they should be, and a well-behaved client is served. */
  unharmed(): Promise<void>;
}

export async function target(t: TestContext): Promise<Target> {
  const lab = await Lab.create();
  t.after(() => lab.close());
  const app = await lab.host('app');
  const before = await canonicalState(app);
  const vpnd = await startVpnd(app, { args: ['--log-level', 'debug'] });
  const clients: RawClient[] = [];
  const connect: Target['connect'] = (identity, options) => {
    const client = new RawClient(app, vpnd.socket, identity, options);
    clients.push(client);
    return client;
  };
  // The probe that waited for the socket has gone when nothing is connected any more.
  await serves(app, connect);
  for (const client of clients.splice(0)) client.close();
  let descriptors = '';
  await eventually(
    () => {
      const now = descriptorKinds(vpnd.pid);
      const isSame = now === descriptors;
      descriptors = now;
      return isSame && !now.includes('pidfd');
    },
    () => descriptors,
  );
  const unharmed = async (): Promise<void> => {
    await serves(app, connect);
    for (const client of clients.splice(0)) client.close();
    await eventually(
      () => descriptorKinds(vpnd.pid) === descriptors,
      () => ({ before: descriptors, now: descriptorKinds(vpnd.pid) }),
    );
    await stateBecomes(app, before);
    assert.ok(vpnd.process.running);
    checkLog(vpnd.log());
  };
  t.after(() => {
    for (const client of clients) client.close();
  });
  return { app, vpnd, connect, unharmed };
}

/** What a process has open, by kind, without numbers. */
export function descriptorKinds(pid: number): string {
  const counts = new Map<string, number>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    let kind = 'closed meanwhile';
    try {
      kind = readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/:\[\d+\]$/, '');
    } catch {
      // Only the reader's own listing does that, or a process that is at work.
    }
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return [...counts]
    .map(([kind, count]) => `${count} ${kind}`)
    .sort()
    .join(', ');
}

async function serves(app: LabHost, connect: Target['connect']): Promise<void> {
  const client = connect(CALLER);
  assert.equal((await client.hello()).result?.isSystem, true);
  // One that a test left behind may still be ending.
  await eventually(
    async () => JSON.stringify((await client.call('status')).result?.vpns) === '[]',
    () => 'there is still a VPN',
  );
  const udp = udpSocketIn(app);
  const answer = await client.call('protect', {}, [udp]);
  const mark = socketMark(udp);
  libc.close(udp);
  assert.deepEqual(answer.result, {});
  assert.equal(mark, BYPASS);
}

export function checkLog(log: string): void {
  for (const line of log.split('\n')) {
    assert.ok(line.length <= LINE_CHARACTERS, `a line of ${line.length} characters: ${line.slice(0, 200)}`);
    assert.doesNotMatch(line, /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/u);
    assert.match(line, /^$|^\d{4}-\d\d-\d\dT[\d:.]+Z (error|warning|info|debug) [a-z-]+( |$)/);
    // "The service's log has the cause" is said of defects: here, of one that a peer can cause at will.
    assert.doesNotMatch(line, / error failed /);
  }
}
