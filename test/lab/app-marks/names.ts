/** Names of cgroups as they are met, ids, and which of them belong together. */
import { MAX_APP_ID_BYTES } from '../../../src/kernel/app-cgroup.js';

export const UUID = '1f0c2c5e-98a4-4f0e-8a55-0123456789ab';
export const LONGEST = 'i'.repeat(MAX_APP_ID_BYTES);

/** name of the cgroup, an id, whether it matches. */
export const SHAPES: readonly [name: string, id: string, matches: boolean][] = [
  ['app-org.lab.Maps-17.scope', 'org.lab.Maps', true],
  ['app-gnome-org.lab.Maps-17.scope', 'org.lab.Maps', true],
  ['app-org.lab.Maps.scope', 'org.lab.Maps', true],
  ['app-gnome-org.lab.Maps@autostart.service', 'org.lab.Maps', true],
  ['app-org.lab.Maps@a-b-c.service', 'org.lab.Maps', true],
  ['app-gnome-org.lab.Maps.service', 'org.lab.Maps', true],
  ['app-gnome-org.lab.Maps-17.slice', 'org.lab.Maps', true],
  ['app-gnome-org.lab.Maps.slice', 'org.lab.Maps', true],
  ['app-org.lab.Maps-17.slice', 'org.lab.Maps', true],
  ['app-org.lab.Maps.slice', 'org.lab.Maps', true],
  ['app-gnome-lab\\x2dmaps-17.scope', 'lab\\x2dmaps', true],
  ['app-gnome-lab\\x2dmaps-17.scope', 'lab', false],
  ['app-gnome-lab\\x2dmaps-17.scope', 'lab-maps', false],
  ['app-flatpak-org.lab.Maps-17.scope', 'org.lab.Maps', true],
  ['app-flatpak-org.telegram.desktop-17.scope', 'org.telegram.desktop', true],
  ['app-gnome-firefox.desktop-17.scope', 'firefox', true],
  ['flatpak-org.lab.my-Maps-17.scope', 'org.lab.my-Maps', true],
  ['flatpak-org.lab.my-Maps-17.scope', 'org.lab.my', false],
  ['gnome-launched-lab-maps.desktop-17.scope', 'lab-maps', true],
  ['dbus-:1.2-org.lab.Maps@0.service', 'org.lab.Maps', true],
  [`snap.firefox.browser-${UUID}.scope`, 'snap.firefox.browser', true],
  [`snap.firefox.browser-${UUID}.scope`, 'snap.firefox', true],
  [`snap.firefox.browser-${UUID}.scope`, 'firefox', true],
  [`snap.firefox.browser-${UUID}.scope`, 'browser', false],
  [`snap.my-fox.web-app.${UUID}.scope`, 'snap.my-fox.web-app', true],
  // No UUID: one of its dashes is none.
  ...[0, 9, 14, 19, 24].map((at): [string, string, boolean] => {
    const tail = `-${UUID}`;
    return [`snap.firefox.browser${tail.slice(0, at)}x${tail.slice(at + 1)}.scope`, 'snap.firefox.browser', false];
  }),
  ['snap.lxd.daemon.service', 'snap.lxd.daemon', true],
  ['snap.lxd.daemon.service', 'lxd', true],
  ['nginx.service', 'nginx', true],
  ['nginx.service', 'nginx.service', true],
  ['openvpn@home.service', 'openvpn', true],
  ['openvpn@home.service', 'openvpn@home.service', true],
  ['openvpn@home.service', 'home', false],
  [`app-${LONGEST}-17.scope`, LONGEST, true],
  [`app-${LONGEST}i-17.scope`, LONGEST, false],
  // Part of an id, an id with more, and an id that stands where none belongs.
  ['app-org.lab.MapsPlus-17.scope', 'org.lab.Maps', false],
  ['app-org.lab-17.scope', 'org.lab.Maps', false],
  ['app-org.lab.Maps-17.scope', 'org.lab.maps', false],
  ['app-org.lab.Maps-firefox-17.scope', 'org.lab.Maps', false],
  ['app-gnome-firefox-org.lab.Maps.scope', 'org.lab.Maps', false],
  ['app-firefox@org.lab.Maps.service', 'org.lab.Maps', false],
  ['org.lab.Maps.scope', 'org.lab.Maps', false],
  ['org.lab.Maps', 'org.lab.Maps', false],
  ['app-gnome-org.lab.Maps-17', 'org.lab.Maps', false],
  ['xapp-gnome-org.lab.Maps-17.scope', 'org.lab.Maps', false],
  ['flatpak-org.lab.Maps-17.service', 'org.lab.Maps', false],
  ['snap.firefox.scope', 'firefox', false],
];
