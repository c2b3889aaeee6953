/** Where a path is, by the lines of proc_pid_mountinfo(5) that a host, a container and `ip netns exec` have. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFirstNetwork, locate } from '../../../../src/host/resolver/whose-file.js';

const PATH = '/etc/resolv.conf';
const HOST = ['22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw', '30 22 0:25 / /run rw - tmpfs tmpfs rw'];
const text = (...lines: string[]) => `${lines.join('\n')}\n`;

test('one file by other mounts is one place, another file another', () => {
  const host = locate(text(...HOST), PATH);
  assert.equal(host, '254:1 /etc/resolv.conf');
  const copies = HOST.map((line) => line.replace(/^\d+ \d+/, '91 90'));
  assert.equal(locate(text(...copies), PATH), host, 'other mount ids');
  const bound = '44 22 254:1 /etc /etc ro - ext4 /dev/vda1 rw';
  assert.equal(locate(text(...HOST, bound), PATH), host, 'the folder bound to itself');
  const named = '99 22 254:1 /etc/netns/blue/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda1 rw';
  assert.equal(locate(text(...copies, named), PATH), '254:1 /etc/netns/blue/resolv.conf');
  const container = [
    '70 1 0:61 / / rw - overlay overlay rw',
    '80 70 254:1 /var/lib/x/resolv.conf /etc/resolv.conf rw - ext4 x rw',
  ];
  assert.equal(locate(text(...container), PATH), '254:1 /var/lib/x/resolv.conf');
});

test('the last mount at a point, and the nearest, counts; names that only begin alike do not', () => {
  const [first, second] = ['50 22 0:40 / /etc rw - tmpfs a rw', '51 50 0:41 / /etc rw - tmpfs b rw'];
  assert.equal(locate(text(...HOST, first, second), PATH), '0:41 /resolv.conf');
  const later = '60 1 0:50 / / rw - overlay o rw';
  assert.equal(locate(text(second, later), PATH), '0:41 /resolv.conf');
  const alike = ['52 22 0:42 / /etc/resolv rw - tmpfs c rw', '53 22 0:43 / /et rw - tmpfs d rw'];
  assert.equal(locate(text(...HOST, ...alike), PATH), '254:1 /etc/resolv.conf');
  assert.equal(locate(text('54 22 0:44 / /a\\040b rw - tmpfs e rw'), '/a b/c'), '0:44 /c');
  assert.equal(locate('', PATH), undefined);
});

test('the first network of a machine is known by what its kernel gave it', () => {
  assert.equal(isFirstNetwork(1n, 4026531840n), true, 'before Linux 6.18');
  assert.equal(isFirstNetwork(3n, 0xeffffff9n), true, 'Linux 6.18');
  assert.equal(isFirstNetwork(4097n, 4026532300n), false);
});
