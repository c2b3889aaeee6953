/** How the service is started, on machines of every kind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Machine, startHint } from '../../../src/ipc/start-hint.js';

const SOCKET = '/run/vpnd/vpnd.sock';
const UNIT = ['/run/systemd/system', '/usr/lib/systemd/system/vpnd.service'];
const COMMAND = ['/usr/local/bin/vpnd', '/usr/bin/node'];
const OWN = '/home/ann/vpn manager/dist/src/service/vpnd.js';
const SUDO = '/usr/bin/sudo';

function machine(files: string[], uid = 1000): Machine {
  return { isThere: (path) => files.includes(path), uid, node: '/home/ann/.nvm/bin/node', vpnd: OWN };
}

test('only what is on the machine is named, and sudo only to whom it helps', () => {
  const own = `/home/ann/.nvm/bin/node '${OWN}'`;
  const table: [files: string[], uid: number, hint: string][] = [
    [[...UNIT, ...COMMAND, OWN, SUDO], 1000, 'start it with: sudo systemctl start vpnd'],
    [[...UNIT, ...COMMAND, OWN, SUDO], 0, 'start it with: systemctl start vpnd'],
    // A unit without a systemd that runs (a container), and a systemd without the unit.
    [[...UNIT.slice(1), ...COMMAND, OWN, SUDO], 1000, 'start it with: sudo vpnd'],
    [[...UNIT.slice(0, 1), ...COMMAND, OWN, SUDO], 1000, 'start it with: sudo vpnd'],
    [[...COMMAND, OWN], 1000, 'start it, as root, with: vpnd'],
    // `env node` would not find it.
    [['/usr/local/bin/vpnd', OWN, SUDO], 1000, `start it with: sudo ${own}`],
    [[OWN, SUDO], 1000, `start it with: sudo ${own}`],
    [[OWN], 0, `start it with: ${own}`],
    [[], 1000, 'install vpnd and start it'],
  ];
  for (const [files, uid, hint] of table) assert.equal(startHint(SOCKET, machine(files, uid)), hint, files.join());
});

test('a service that is to listen elsewhere is started so', () => {
  const everything = machine([...UNIT, ...COMMAND, OWN, SUDO]);
  assert.equal(startHint('/tmp/x.sock', everything), 'start it with: sudo vpnd --socket /tmp/x.sock');
  assert.equal(startHint("/tmp/it's", everything), "start it with: sudo vpnd --socket '/tmp/it'\\''s'");
});
