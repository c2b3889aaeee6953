/**
 * New sessions in time, without shortened timers: two pairs of this tunnel and wireguard-go (lib/wireguard-lab.ts) run side by
 * side for 132 s, in one of which this tunnel began and has to rekey, in the other wireguard-go.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { INSIDE } from './lib/two-hosts.js';
import { requirePeers } from './lib/unpacked-peers.js';
import {
  captureMessages,
  described,
  pingSizes,
  startPair,
  type WireGuardMessage,
  withoutRepeats,
} from './lib/wireguard-lab.js';

const SECONDS = 132;
const REKEY_AFTER_SECONDS = 120;
const PINGS_PER_SECOND = 5;

/** The handshake's initiator knows the session by its own index, which the responder sends data to. */
function receiverIndex({ payload }: WireGuardMessage): number {
  return Buffer.from(payload).readUInt32LE(4);
}

test('whoever began rekeys after 120 s, whichever of the two it is, and no packet is lost, doubled or late', async (t) => {
  if (!requirePeers(t)) return;
  await Promise.all(
    (['ours', 'theirs'] as const).map(async (initiator) => {
      const pair = await startPair(t, { initiator, presharedKey: 'same' });
      const responder = initiator === 'ours' ? 'theirs' : 'ours';
      const capture = await captureMessages(pair);
      const [sender, target] =
        initiator === 'ours' ? [pair.here, INSIDE.IPv4.there] : ([pair.there, INSIDE.IPv4.here] as const);
      await pingSizes(sender, target, [56]);
      // One more than is looked at: ping does not wait long for the answer to its last.
      const count = SECONDS * PINGS_PER_SECOND;
      const words = ['-n', '-i', String(1 / PINGS_PER_SECOND), '-c', String(count + 1), target];
      const { stdout } = await sender.run('ping', words, { timeoutMs: (SECONDS + 100) * 1000 });
      const messages = await capture.stop();

      const answered = new Set([...stdout.matchAll(/icmp_seq=(\d+) /g)].map(([, number]) => Number(number)));
      const lost = Array.from({ length: count }, (_, index) => index + 1).filter((number) => !answered.has(number));
      assert.deepEqual(lost, []);
      assert.doesNotMatch(stdout, /duplicates|DUP!/);
      const times = [...stdout.matchAll(/time=([\d.]+) ms/g)].map(([, time]) => Number(time));
      // One that waits for a message that was lost waits for 5 s.
      assert.ok(Math.max(...times) < 4000, `an answer after ${Math.max(...times)} ms`);

      const handshakes = messages.filter(({ type }) => type !== 4);
      const began = messages[0]?.timeMs ?? 0;
      const wanted = initiator === 'theirs' ? withoutRepeats(handshakes) : handshakes;
      assert.deepEqual(
        described(wanted),
        [`${initiator} 1`, `${responder} 2`, `${initiator} 1`, `${responder} 2`],
        `after ${handshakes.map(({ timeMs }) => Math.round(timeMs - began)).join(', ')} ms`,
      );
      const [, first, again] = wanted;
      const last = handshakes.at(-1);
      assert.ok(first && again && last);
      const waited = (again.timeMs - first.timeMs) / 1000;
      assert.ok(waited >= REKEY_AFTER_SECONDS - 0.5 && waited < REKEY_AFTER_SECONDS + 6, `rekey after ${waited} s`);

      // Data goes to the new indexes a moment after the response; both directions.
      const settled = messages.filter(({ type, timeMs }) => type === 4 && timeMs > last.timeMs + 4000);
      const indexOf = (message: WireGuardMessage) => message.payload.slice(4, 8).join('.');
      const toInitiator = last.payload.slice(8, 12).join('.');
      const toResponder = indexOf(last);
      for (const message of settled) {
        assert.equal(indexOf(message), message.from === initiator ? toResponder : toInitiator);
      }
      assert.ok(settled.length > 2 * PINGS_PER_SECOND, `${settled.length} messages in the new session`);
      assert.notEqual(receiverIndex(first), receiverIndex(last));
    }),
  );
});
