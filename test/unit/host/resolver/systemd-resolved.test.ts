/** What systemd-resolved is asked to do, in the D-Bus types of org.freedesktop.resolve1(5). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DbusError, type Destination } from '../../../../src/host/resolver/system-bus.js';
import { SystemdResolved } from '../../../../src/host/resolver/systemd-resolved.js';
import { REQUEST } from './lib/requests.js';

type Call = [member: string, signature: string, ...body: unknown[]];

/** A bus that answers as `answer` says: by returning, or by throwing. */
function recording(answer: (...call: Call) => void = () => {}): { calls: Call[]; resolved: SystemdResolved } {
  const calls: Call[] = [];
  const call = async (to: Destination, ...rest: Call) => {
    assert.equal(to.destination, 'org.freedesktop.resolve1');
    calls.push(rest);
    answer(...rest);
    return [];
  };
  return { calls, resolved: new SystemdResolved(() => ({ call })) };
}

const request = { ...REQUEST, servers: ['10.9.0.1', 'fd09::1'] };
const SERVERS = [
  [2, Buffer.from([10, 9, 0, 1])],
  [10, Buffer.from('fd090000000000000000000000000001', 'hex')],
];

test('apply() sets servers, domains and the default route of the link, and empties the caches', async () => {
  const { calls, resolved } = recording();
  await resolved.apply(request);
  assert.deepEqual(calls, [
    ['SetLinkDNS', 'ia(iay)', 7, SERVERS],
    [
      'SetLinkDomains',
      'ia(sb)',
      7,
      [
        ['.', true],
        ['corp.example', false],
        ['lab.example', false],
      ],
    ],
    ['SetLinkDefaultRoute', 'ib', 7, true],
    ['FlushCaches', ''],
  ]);
});

test('a VPN without servers answers for no name, exclusive or not', async () => {
  const { calls, resolved } = recording();
  await resolved.apply({ ...request, servers: [], searchDomains: ['corp.example'] });
  assert.deepEqual(calls.slice(0, 3), [
    ['SetLinkDNS', 'ia(iay)', 7, []],
    ['SetLinkDomains', 'ia(sb)', 7, [['corp.example', false]]],
    ['SetLinkDefaultRoute', 'ib', 7, false],
  ]);
});

test('another link: the first is taken back before', async () => {
  const { calls, resolved } = recording();
  await resolved.apply(request);
  calls.length = 0;
  await resolved.apply({ ...request, link: { name: 'vpn-tun1', ifindex: 8 } });
  assert.deepEqual(calls[0], ['RevertLink', 'i', 7]);
  assert.deepEqual(calls[2], ['SetLinkDNS', 'ia(iay)', 8, SERVERS]);
  await resolved.restore();
  assert.deepEqual(calls.at(-2), ['RevertLink', 'i', 8]);
  const before = calls.length;
  await resolved.restore();
  assert.equal(calls.length, before);
});

test('a resolved that takes fewer domains gets the first of them, and every name is still the VPN’s', async () => {
  const accepted: unknown[] = [];
  const { resolved } = recording((member, _, __, list) => {
    if (member !== 'SetLinkDomains' || !Array.isArray(list)) return;
    if (list.length > 32) throw new DbusError(member, 'System.Error.E2BIG', 'Argument list too long');
    accepted.push(...list.map(([domain]) => domain));
  });
  await resolved.apply({ ...request, searchDomains: Array.from({ length: 64 }, (_, index) => `d${index}.example`) });
  assert.equal(accepted.length, 32);
  assert.deepEqual(accepted.slice(0, 2), ['.', 'd0.example']);
});

test('restore() is done when the link or resolved is gone; other errors are thrown, and it can be tried again', async () => {
  const failures = [
    'org.freedesktop.DBus.Error.NoReply',
    'org.freedesktop.resolve1.NoSuchLink',
    'org.freedesktop.DBus.Error.ServiceUnknown',
  ];
  for (const failure of failures) {
    let errorName: string | undefined = failure;
    const { calls, resolved } = recording((member) => {
      if (member === 'RevertLink' && errorName !== undefined) throw new DbusError(member, errorName, '');
    });
    await resolved.apply(request);
    if (failure.endsWith('NoReply')) {
      await assert.rejects(resolved.restore(), { name: 'DbusError', errorName });
      errorName = undefined;
    }
    await resolved.restore();
    await resolved.restore();
    assert.equal(calls.filter(([member]) => member === 'RevertLink').length, failure.endsWith('NoReply') ? 2 : 1);
  }
});
