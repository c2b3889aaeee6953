import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Admission, KnownSources } from '../../../../src/tunnel/wireguard/admission.js';
import { Endpoint } from '../../../../src/tunnel/wireguard/endpoint.js';

const stranger = (index: number): Endpoint =>
  Endpoint.of(`198.51.${(index >>> 8) & 255}.${index & 255}`, 1 + (index >>> 16));
const friend = Endpoint.of('192.0.2.1', 51820);

function acquainted(): Admission {
  const admission = new Admission(7);
  admission.known.add(friend);
  return admission;
}

const count = (attempts: number, attempt: (index: number) => boolean): number =>
  Array.from({ length: attempts }, (_, index) => attempt(index)).filter(Boolean).length;

test('strangers use up every budget but for what is kept for the endpoints of peers', () => {
  const admission = acquainted();
  for (const [step, burst, kept] of [
    ['mayRead', 5000, 1000],
    ['maySendCookie', 200, 50],
    ['mayShakeHands', 120, 20],
  ] as const) {
    // One in 65536 strangers may be taken for a peer.
    const strangers = count(100_000, (index) => admission[step](stranger(index), 0));
    assert.ok(strangers >= burst - kept && strangers <= burst - kept + 5, `${step} ${strangers}`);
    const friends = count(10_000, () => admission[step](friend, 0));
    assert.equal(strangers + friends, burst, step);
  }
});

test('there is load when half of the handshakes is used, and until a second after', () => {
  const admission = acquainted();
  assert.equal(
    count(60, () => admission.mayShakeHands(stranger(1), 0)),
    60,
  );
  assert.equal(admission.isUnderLoad(0), false);
  assert.equal(admission.mayShakeHands(stranger(1), 0), true);
  assert.equal(admission.isUnderLoad(0), true);
  assert.equal(admission.isUnderLoad(999), true);
  assert.equal(admission.isUnderLoad(1000), false);
});

test('handshakes go on at 400 a second under any load', () => {
  const admission = acquainted();
  let done = 0;
  for (let ms = 0; ms < 10_000; ms++) done += count(20, (index) => admission.mayShakeHands(stranger(index), ms));
  assert.ok(done >= 4000 && done <= 4000 + 120, `${done}`);
});

test('an endpoint is known as often as it was added, and no longer', () => {
  const known = new KnownSources(99);
  assert.equal(known.has(friend), false);
  known.add(friend);
  known.add(Endpoint.of('192.0.2.1', 51820));
  known.delete(friend);
  assert.equal(known.has(friend), true);
  known.delete(friend);
  assert.equal(known.has(friend), false);
  known.delete(friend);
  known.add(friend);
  assert.equal(known.has(friend), true);
});

test('who takes strangers for peers depends on the seed', () => {
  const others = Array.from({ length: 5000 }, (_, index) => Endpoint.of(`10.0.${index >>> 8}.${index & 255}`, 9));
  const mistaken = [1, 2].map((seed) => {
    const known = new KnownSources(seed);
    for (const each of others) known.add(each);
    return count(20_000, (index) => known.has(stranger(index)));
  });
  for (const each of mistaken) assert.ok(each > 1000 && each < 2000, `${each} of 20,000 with 5,000 of 65,536 slots`);
  const [first, second] = [new KnownSources(1), new KnownSources(2)];
  for (const each of others) {
    first.add(each);
    second.add(each);
  }
  const both = count(20_000, (index) => first.has(stranger(index)) && second.has(stranger(index)));
  assert.ok(both < 300, `${both}`);
});
