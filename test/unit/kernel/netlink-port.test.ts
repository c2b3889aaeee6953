/** Port ids of this process's own sockets. */
import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import test from 'node:test';
import { libc } from '../../../src/kernel/ffi.js';
import { netlinkPort, netlinkPortsOf } from '../../../src/kernel/netlink-port.js';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const NETLINK_ROUTE = 0;
const NETLINK_SOCK_DIAG = 4;

test('a socket keeps the port id it is given, and is found by it among the sockets of its protocol', (t) => {
  const [a, b] = [libc.socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), libc.socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)];
  const file = openSync('/dev/null', 'r');
  t.after(() => [a, b, file].forEach(closeSync));
  assert.equal(netlinkPortsOf(NETLINK_ROUTE).size, 0, 'none has an id yet');
  const [first, second] = [netlinkPort(a), netlinkPort(b)];
  assert.notEqual(first, second);
  assert.equal(netlinkPort(a), first);
  assert.deepEqual(netlinkPortsOf(NETLINK_ROUTE), new Set([first, second]));
  assert.equal(netlinkPortsOf(NETLINK_SOCK_DIAG).size, 0);
  assert.throws(() => netlinkPort(file), /bind AF_NETLINK: ENOTSOCK/);
});
