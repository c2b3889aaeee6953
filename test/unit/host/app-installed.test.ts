import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { type AppRoots, installedAppIds } from '../../../src/host/app-installed.js';
import { appIdCandidates } from '../../../src/kernel/app-cgroup.js';

interface Machine {
  roots: AppRoots;
  file(path: string, text?: string): void;
  link(path: string, target: string): void;
  idsOf(name: string): string[];
}

/** An empty machine in a directory of its own. */
function machine(t: TestContext): Machine {
  const root = mkdtempSync(join(tmpdir(), 'installed-'));
  t.after(() => rmSync(root, { recursive: true }));
  const roots: AppRoots = {
    desktop: [join(root, 'local'), join(root, 'usr')],
    flatpak: [join(root, 'flatpak')],
    snap: [join(root, 'snap')],
    snapDesktop: join(root, 'snapd'),
    units: { system: [join(root, 'etc'), join(root, 'lib')], user: [join(root, 'user')] },
  };
  const at = (path: string): string => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    return join(root, path);
  };
  return {
    roots,
    file: (path, text = '') => writeFileSync(at(path), text),
    link: (path, target) => symlinkSync(target, at(path)),
    idsOf: (name) => installedAppIds(name, roots),
  };
}

/** Whether the name covers a cgroup that is called so: the ids meet those that the kernel compares. */
function covers({ idsOf }: Machine, name: string, cgroup: string): boolean {
  const ids = idsOf(name);
  return appIdCandidates(cgroup).some((candidate) => ids.includes(candidate));
}

test('nothing is installed on an empty machine', (t) => {
  const { idsOf } = machine(t);
  for (const name of ['firefox', 'firefox.desktop', 'ssh.service', 'getty@tty1', 'snap.a.b']) {
    assert.deepEqual(idsOf(name), []);
  }
});

test('a desktop entry is found with and without its suffix, and covers what desktops make of it', (t) => {
  const host = machine(t);
  host.file('usr/libreoffice-writer.desktop');
  host.file('local/firefox.desktop');
  for (const [name, cgroup] of [
    // gnome-shell, gnome-session's autostart, KDE's ScopedProcessRunner and SystemdProcessRunner, uwsm, GNOME 3.34
    ['libreoffice-writer', 'app-gnome-libreoffice\\x2dwriter-4711.scope'],
    ['libreoffice-writer.desktop', 'app-libreoffice\\x2dwriter@autostart.service'],
    ['libreoffice\\x2dwriter', 'app-libreoffice\\x2dwriter-0b3a6cbb1f5e4c0f9d0f3c8f6f1f2a3b.scope'],
    ['libreoffice-writer', 'app-libreoffice\\x2dwriter@0b3a6cbb1f5e4c0f9d0f3c8f6f1f2a3b.service'],
    ['firefox', 'app-Hyprland-firefox-1a2b3c4d.scope'],
    ['libreoffice-writer', 'gnome-launched-libreoffice-writer.desktop-38417.scope'],
    ['firefox.desktop', 'gnome-launched-firefox.desktop-1234.scope'],
    ['firefox', 'app-vpnctl-firefox-0123456789abcdef.scope'],
  ] as const) {
    assert.ok(covers(host, name, cgroup), `${name} covers ${cgroup}`);
  }
  assert.ok(!covers(host, 'firefox', 'app-gnome-firefox\\x2desr-1.scope'));
  assert.ok(!covers(host, 'libreoffice-writer', 'app-gnome-libreoffice\\x2dcalc-1.scope'));
});

test('an entry in a subfolder has the folder in its id', (t) => {
  const host = machine(t);
  host.file('usr/kde/deep/x-y.desktop');
  assert.deepEqual(host.idsOf('kde-deep-x-y'), ['kde\\x2ddeep\\x2dx\\x2dy', 'kde-deep-x-y']);
  for (const name of ['x-y', 'kde', 'kde-deep', 'kde-deep-x', 'deep-x-y']) assert.deepEqual(host.idsOf(name), []);
});

test('only files are entries, and escapes lead out of no folder', (t) => {
  const host = machine(t);
  host.file('usr/folder.desktop/x');
  host.file('secret.desktop');
  host.link('usr/gone.desktop', '/nowhere');
  for (const name of ['folder', 'gone', '..\\x2fsecret', '.-secret', 'usr-..-secret']) {
    assert.deepEqual(host.idsOf(name), [], name);
  }
});

test('a flatpak is found by its id and by what it exports, and runs under its id', (t) => {
  const host = machine(t);
  host.file('flatpak/app/org.telegram.desktop/current');
  host.file('flatpak/app/org.libreoffice.LibreOffice/current');
  const exports = 'flatpak/exports/share/applications';
  const active = 'current/active/export/share/applications';
  for (const [app, entry] of [
    ['org.telegram.desktop', 'org.telegram.desktop.desktop'],
    ['org.libreoffice.LibreOffice', 'org.libreoffice.LibreOffice.writer.desktop'],
  ] as const) {
    host.link(`${exports}/${entry}`, `../../../app/${app}/${active}/${entry}`);
    rmSync(join(host.roots.flatpak[0] ?? '', 'app', app, 'current'));
    host.file(`flatpak/app/${app}/${active}/${entry}`);
  }
  for (const name of ['org.telegram.desktop', 'org.telegram.desktop.desktop']) {
    assert.ok(covers(host, name, 'app-flatpak-org.telegram.desktop-4711.scope'), name);
    assert.ok(covers(host, name, 'flatpak-org.telegram.desktop-4711.scope'), name);
    assert.ok(covers(host, name, 'app-gnome-org.telegram.desktop-4711.scope'), name);
  }
  const writer = 'org.libreoffice.LibreOffice.writer';
  assert.ok(covers(host, writer, 'app-flatpak-org.libreoffice.LibreOffice-4711.scope'));
  assert.ok(covers(host, writer, 'app-gnome-org.libreoffice.LibreOffice.writer-4711.scope'));
  assert.ok(covers(host, 'org.libreoffice.LibreOffice', 'app-flatpak-org.libreoffice.LibreOffice-4711.scope'));
});

test('a snap is found by package, command and entry, and by its services', (t) => {
  const host = machine(t);
  const uuid = '1b4e28ba-2fa1-11d2-883f-0016d3cca427';
  host.link('snap/signal-desktop/current', '647');
  host.link('snap/bin/signal-desktop', '/usr/bin/snap');
  host.link('snap/bin/signal-desktop.helper', '/usr/bin/snap');
  host.file('snapd/signal-desktop_signal-desktop.desktop', '[Desktop Entry]\nX-SnapInstanceName=signal-desktop\n');
  host.file('snapd/org.mozilla.firefox.desktop', '[Desktop Entry]\nX-SnapInstanceName=firefox\n');
  host.file('etc/snap.lxd.daemon.service');
  const scope = `snap.signal-desktop.signal-desktop-${uuid}.scope`;
  for (const name of [
    'signal-desktop',
    'snap.signal-desktop',
    'snap.signal-desktop.signal-desktop',
    'signal-desktop_signal-desktop',
    'signal-desktop_signal-desktop.desktop',
  ]) {
    assert.ok(covers(host, name, scope), name);
    // The naming of snapd before 2.56.
    assert.ok(covers(host, name, `snap.signal-desktop.signal-desktop.${uuid}.scope`), name);
  }
  const helper = `snap.signal-desktop.helper-${uuid}.scope`;
  assert.ok(covers(host, 'signal-desktop', helper));
  assert.ok(covers(host, 'snap.signal-desktop.helper', helper));
  assert.ok(!covers(host, 'snap.signal-desktop.helper', scope));
  assert.ok(covers(host, 'org.mozilla.firefox', `snap.firefox.firefox-${uuid}.scope`));
  assert.ok(covers(host, 'snap.lxd.daemon', 'snap.lxd.daemon.service'));
  for (const name of ['bin', 'snap.bin', 'snap.signal-desktop.other', 'snap.signal-desktop.a.b', 'snap.', 'snap']) {
    assert.deepEqual(host.idsOf(name), [], name);
  }
});

test('a service is found by its unit file; with the suffix it is the unit and no application that is called the same', (t) => {
  const host = machine(t);
  host.file('lib/systemd-resolved.service');
  host.file('user/org.gnome.Maps.service');
  for (const name of ['systemd-resolved', 'systemd-resolved.service']) {
    assert.ok(covers(host, name, 'systemd-resolved.service'), name);
  }
  assert.ok(covers(host, 'org.gnome.Maps', 'dbus-:1.2-org.gnome.Maps@0.service'));
  assert.ok(!covers(host, 'org.gnome.Maps.service', 'app-gnome-org.gnome.Maps-1.scope'));
  assert.ok(!covers(host, 'systemd-resolved.service', 'systemd-resolved.scope'));
});

test('an alias is the unit that it leads to, in whichever directory; a masked unit is none', (t) => {
  const host = machine(t);
  host.file('lib/ssh.service');
  host.link('etc/sshd.service', '/lib/systemd/system/ssh.service');
  host.link('etc/openssh.service', 'sshd.service');
  host.link('etc/linked.service', '/opt/linked.service');
  host.link('etc/a.service', 'b.service');
  host.link('etc/b.service', 'a.service');
  host.file('lib/masked.service');
  host.link('etc/masked.service', '/dev/null');
  for (const name of ['sshd', 'sshd.service', 'openssh', 'ssh']) assert.ok(covers(host, name, 'ssh.service'), name);
  assert.ok(covers(host, 'linked', 'linked.service'));
  for (const name of ['masked', 'masked.service', 'a.service']) assert.deepEqual(host.idsOf(name), [], name);
});

test('a template is all its instances; an instance is only itself', (t) => {
  const host = machine(t);
  host.file('lib/getty@.service');
  host.link('etc/autovt@.service', '/lib/systemd/system/getty@.service');
  for (const name of ['getty@', 'getty@.service']) assert.ok(covers(host, name, 'getty@tty7.service'), name);
  for (const name of ['getty@tty1', 'getty@tty1.service', 'autovt@tty1', 'autovt@tty1.service']) {
    assert.ok(covers(host, name, 'getty@tty1.service'), name);
    assert.ok(!covers(host, name, 'getty@tty2.service'), name);
  }
});

test('a unit whose cgroup systemd has to call otherwise is found there', (t) => {
  const host = machine(t);
  host.file('lib/memory.service');
  assert.ok(covers(host, 'memory.service', '_memory.service'));
  assert.ok(covers(host, 'memory', '_memory.service'));
});
