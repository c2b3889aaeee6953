/** What notifications of links mean: those in the order in which Linux 6.18 sends them when a vNIC is made, and tampering. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { isVnic, type LinkNews, LinkTracker } from '../../../src/host/link-tracker.js';
import { DYING_LINK_GROUP, LINK_GROUP } from '../../../src/host/numbers.js';
import type { LinkEntry } from '../../../src/kernel/rtnetlink-list.js';

const NEW: LinkEntry = {
  ifindex: 7,
  name: 'vpn-tun0',
  group: 0,
  isUp: false,
  isLoopback: false,
  mtu: 1500,
  master: 0,
  kind: 'tun',
};
const TAGGED = { ...NEW, mtu: 1400, group: LINK_GROUP };
const STANDING = { ...TAGGED, isUp: true };
const ETH0 = { ...NEW, ifindex: 2, name: 'eth0', kind: '', isUp: true };

function news(...links: LinkEntry[]): (LinkNews | undefined)[] {
  const tracker = new LinkTracker();
  return links.map((link) => tracker.take(link, false));
}

test('a vNIC that is made is no news', () => {
  assert.deepEqual(news(NEW, NEW, { ...NEW, mtu: 1400 }, TAGGED, STANDING, STANDING), Array(6).fill(undefined));
});

test('every other state of a vNIC that stood is news, once, and its return is none', () => {
  const changes: Partial<LinkEntry>[] = [
    { isUp: false },
    { name: 'harmless' },
    { name: 'harmless', group: 0 },
    { mtu: 1280 },
    { master: 9 },
    { group: 0 },
  ];
  for (const change of changes) {
    const other = { ...STANDING, ...change };
    assert.deepEqual(
      news(NEW, TAGGED, STANDING, other, other, STANDING, other),
      [undefined, undefined, undefined, 'vnic', undefined, undefined, 'vnic'],
      JSON.stringify(change),
    );
  }
});

test('the end of a vNIC is news, and an index that is used again is another link', () => {
  const tracker = new LinkTracker();
  tracker.take(STANDING, false);
  assert.equal(tracker.isVnic(7), true);
  assert.equal(tracker.take(STANDING, true), 'vnic');
  assert.equal(tracker.isVnic(7), false);
  assert.equal(tracker.take({ ...ETH0, ifindex: 7 }, false), 'other');
});

test('of another link only what matters to routing is news', () => {
  assert.deepEqual(news(ETH0, ETH0, { ...ETH0, isUp: false }, ETH0), ['other', undefined, 'other', 'other']);
  assert.deepEqual(news(ETH0, { ...ETH0, name: 'lan0' }, { ...ETH0, master: 4 }), ['other', 'other', 'other']);
});

test('a vNIC is told by its group, or by name and kind; a name alone proves nothing', () => {
  assert.equal(isVnic(NEW), true);
  assert.equal(isVnic({ name: 'x', kind: 'tun', group: DYING_LINK_GROUP }), true);
  assert.equal(isVnic({ ...NEW, kind: '' }), false);
  assert.equal(isVnic({ ...NEW, name: 'vpn-tun0a' }), false);
});
