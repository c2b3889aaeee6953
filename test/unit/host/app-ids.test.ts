import assert from 'node:assert/strict';
import test from 'node:test';
import { escapeId, fileNameOf, spellings, whyNoAppId } from '../../../src/host/app-ids.js';

test('whyNoAppId() accepts desktop ids, D-Bus names, units and snaps, escaped or not', () => {
  for (const id of [
    'firefox',
    'org.mozilla.firefox',
    'org.telegram.desktop',
    'libreoffice-writer.desktop',
    'libreoffice\\x2dwriter',
    'Half\\x2dLife\\x202',
    'getty@tty1.service',
    'snap.firefox.firefox',
    'firefox+second_firefox',
    'notepad++',
    'a:b',
    '_hidden',
    'x'.repeat(124),
  ]) {
    assert.equal(whyNoAppId(id), undefined, id);
  }
});

test('whyNoAppId() refuses what must not reach a file, the kernel or a log', () => {
  for (const id of [
    '',
    '.',
    '..',
    '.hidden',
    '-x',
    'a/b',
    '../../etc/passwd',
    'a..b',
    'a b',
    'a\nb',
    'a\0b',
    'a\x1b[2J',
    'é',
    '\ud800',
    'a"b',
    'a;b',
    '$(id)',
    'a*',
    'a\\b',
    'a\\x2',
    'a\\x2D',
    // What is refused as it stands is refused escaped.
    'a\\x2fb',
    '\\x2e\\x2e',
    'a\\x2e.b',
    'a\\x00b',
    'a\\x0ab',
    'a\\xffb',
  ]) {
    assert.match(whyNoAppId(id) ?? 'accepted', /^is no application id: /, JSON.stringify(id));
  }
});

test('whyNoAppId() says how long a name is and repeats none of it', () => {
  assert.match(whyNoAppId('y'.repeat(10_240)) ?? '', /^has 10240 characters; .{0,100}$/);
  assert.match(whyNoAppId('y'.repeat(125)) ?? '', /124 bytes/);
  // Unescaped it still fits, and that is how old flatpaks and units carry it.
  assert.equal(whyNoAppId(`a${'-'.repeat(40)}`), undefined);
});

test('escapeId() is systemd-escape: what it writes is what desktops put into names of units', () => {
  // Names that systemd's own tools, GNOME and KDE give.
  assert.equal(escapeId('at-spi-dbus-bus'), 'at\\x2dspi\\x2ddbus\\x2dbus');
  assert.equal(escapeId('org.gnome.Terminal'), 'org.gnome.Terminal');
  assert.equal(escapeId('a@b+c:d_e'), 'a\\x40b\\x2bc:d_e');
  assert.equal(escapeId('at\\x2dspi'), 'at\\x2dspi');
});

test('spellings() has both forms, and none that the kernel cannot hold', () => {
  assert.deepEqual(spellings('firefox'), ['firefox']);
  assert.deepEqual(spellings('signal-desktop'), ['signal\\x2ddesktop', 'signal-desktop']);
  assert.deepEqual(spellings(`${'a-'.repeat(40)}a`), [`${'a-'.repeat(40)}a`]);
  assert.deepEqual(spellings('a'.repeat(125)), []);
});

test('fileNameOf() undoes the escapes, also of other alphabets', () => {
  assert.equal(fileNameOf('Half\\x2dLife\\x202'), 'Half-Life 2');
  assert.equal(fileNameOf('B\\xc3\\xbccher'), 'Bücher');
});
