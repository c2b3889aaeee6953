import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { appIdCandidates, MAX_APP_ID_BYTES } from '../../../src/kernel/app-cgroup.js';

const UUID = '1f0c2c5e-98a4-4f0e-8a55-0123456789ab';

/** Names as they are met on desktops and servers. */
const NAMES: Record<string, string[]> = {
  'app-gnome-org.gnome.Maps-4711.scope': ['org.gnome.Maps'],
  'app-org.kde.dolphin-0a1b2c3d4e5f.scope': ['org.kde.dolphin'],
  'app-org.gnome.Terminal.slice': ['org.gnome.Terminal'],
  'app-Hyprland-firefox-8c1d.slice': ['firefox'],
  'app-gnome-firefox.slice': ['gnome', 'firefox'],
  'app-firefox.scope': ['firefox'],
  'app-gnome-google\\x2dchrome-99.scope': ['google\\x2dchrome'],
  'app-gnome-firefox.desktop-99.scope': ['firefox.desktop', 'firefox'],
  'app-firefox@autostart.service': ['firefox', 'app-firefox', 'app-firefox@autostart.service'],
  'app-flatpak-org.telegram.desktop-99.scope': ['org.telegram.desktop', 'org.telegram'],
  'flatpak-org.my-app.Foo-99.scope': ['org.my-app.Foo'],
  'gnome-launched-my-app.desktop-99.scope': ['my-app.desktop', 'my-app'],
  'dbus-:1.2-org.gnome.Maps@0.service': [
    'org.gnome.Maps',
    'dbus-:1.2-org.gnome.Maps',
    'dbus-:1.2-org.gnome.Maps@0.service',
  ],
  [`snap.firefox.web-app-${UUID}.scope`]: ['snap.firefox.web-app', 'snap.firefox', 'firefox'],
  [`snap.firefox.firefox.${UUID}.scope`]: ['snap.firefox.firefox', 'snap.firefox', 'firefox'],
  'snap.lxd.daemon.service': ['snap.lxd.daemon', 'snap.lxd', 'lxd', 'snap.lxd.daemon.service'],
  'nginx.service': ['nginx', 'nginx.service'],
  'openvpn@home.service': ['openvpn', 'openvpn@home.service'],
  'user@1000.service': ['user', 'user@1000.service'],
  'session-2.scope': [],
  'user.slice': [],
  'app.slice': [],
  'vte-spawn-1f0c.scope': [],
  'snap.group.slice': [],
  'init.scope': [],
  'flatpak-.scope': [],
  'app-.scope': [],
  '.service': [],
  'cgroup.procs': [],
  '': [],
};

test('appIdCandidates() reads the names that desktops and package systems give', () => {
  for (const [name, ids] of Object.entries(NAMES)) assert.deepEqual(appIdCandidates(name), ids, name);
});

test('appIdCandidates() gives at most ten parts of any name, none empty, none too long for the kernel', () => {
  const name = fc.tuple(
    fc.constantFrom('app-', 'snap.', 'flatpak-', 'dbus-', ''),
    fc.string({ maxLength: 200, unit: 'binary' }),
    fc.constantFrom('.scope', '.service', '.slice', ''),
  );
  fc.assert(
    fc.property(name, (pieces) => {
      const text = Buffer.from(pieces.join('')).toString();
      const ids = appIdCandidates(text);
      assert.ok(ids.length <= 10 && new Set(ids).size === ids.length);
      for (const id of ids) {
        assert.ok(text.includes(id) && id !== '' && Buffer.byteLength(id) <= MAX_APP_ID_BYTES, id);
      }
    }),
  );
});

test('appIdCandidates() counts bytes, as the kernel does', () => {
  const long = 'é'.repeat(MAX_APP_ID_BYTES / 2);
  assert.deepEqual(appIdCandidates(`app-${long}-1.scope`), [long]);
  assert.deepEqual(appIdCandidates(`app-${long}x-1.scope`), []);
  assert.deepEqual(appIdCandidates(`app-${'x'.repeat(230)}-é-1234567890.scope`), ['é']);
  assert.deepEqual(appIdCandidates(`app-${'x'.repeat(240)}-é-1234567890.scope`), [], 'longer than a file name can be');
});
