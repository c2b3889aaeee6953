/**
 * What somebody else has where our names and numbers are, in words for the log. Asked after a sweep, when nothing of ours is
 * left. It changes nothing: whose it is, an administrator decides.
 */
import type { NetlinkSocket } from '../kernel/netlink-socket.js';
import { listBothFamilies, listLinks, listRoutes, listRules } from '../kernel/rtnetlink-list.js';
import { IPV6 } from '../model/vpn-types.js';
import { isOurPriority, isOurTable, PRIORITY } from './numbers.js';

const BAND = `priorities ${PRIORITY.first} to ${PRIORITY.end} are vpnd's`;
const LINK = /^vpn-tun[0-9]+$/;

export async function findCollisions(socket: NetlinkSocket): Promise<string[]> {
  const rules = await listBothFamilies((family) => listRules(socket, family));
  const routes = await listBothFamilies((family) => listRoutes(socket, family));
  const links = await listLinks(socket);
  const found = [
    ...rules
      .filter(({ priority }) => isOurPriority(priority))
      .map(
        ({ family, priority }) => `ip ${version(family)} rule ${priority} is passed over while a VPN is up: ${BAND}`,
      ),
    ...routes
      .filter(({ table }) => isOurTable(table))
      .map(({ family, table }) => `ip ${version(family)} route in table ${table}, which is a VPN's`),
    ...links.filter(({ name }) => LINK.test(name)).map(({ name }) => `link ${name} has the name of a vNIC`),
  ];
  return [...new Set(found)];
}

function version(family: number): string {
  return family === IPV6 ? '-6' : '-4';
}
