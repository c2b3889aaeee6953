/**
 * A VPN's kernel state as input for the programs that vpnd is measured against: the rules every VPN shares and the plan, for
 * `ip -batch` and `nft -f` as text, for setup.c as prepared rtnetlink messages. Each makes and removes the same objects.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { firewallBase, firewallRemoval, firewallTables } from '../../src/host/firewall-base.js';
import { ipv4Settings } from '../../src/host/link-settings.js';
import { LAST_UID, LINK_GROUP } from '../../src/host/numbers.js';
import { addition, type Operation, removal } from '../../src/host/operation.js';
import { type Plan, planBase } from '../../src/host/plan.js';
import { firewallAdditions } from '../../src/host/plan-firewall.js';
import { renderOperation } from '../../src/host/render.js';
import { NetlinkWriter, NLM_F_ACK, NLM_F_REQUEST } from '../../src/kernel/netlink.js';
import type { NetlinkRequest } from '../../src/kernel/netlink-socket.js';
import { configureLink, deleteLink, setLinkUp } from '../../src/kernel/rtnetlink.js';
import { IPV6 } from '../../src/model/vpn-types.js';

/** The vNIC's index in setup.c, so that messages can be prepared. */
export const IFINDEX = 4242;
const MESSAGES_PER_SEND = 500;

/** Writes everything into a new folder. `up.sh` and `down.sh` are what an administrator would run. */
export function writeState(directory: string, plan: Plan): void {
  mkdirSync(directory);
  const write = (name: string, lines: readonly string[]) =>
    writeFileSync(join(directory, name), `${lines.join('\n')}\n`);
  const { name, ipv6, mtu, routeLocalnet } = plan.link;
  const rules = [...planBase(LAST_UID), ...plan.sectionRules, ...plan.rules];
  const routes = plan.routes.filter(({ kind }) => kind === 'route');

  // `ip rule` takes its family from an option only; everything else tells it by its address.
  const [other, rules6] = [
    rules.filter(({ family }) => family !== IPV6),
    rules.filter(({ family }) => family === IPV6),
  ];
  write('up', [
    `tuntap add dev ${name} mode tun`,
    `link set ${name} mtu ${mtu} group ${LINK_GROUP} multicast off addrgenmode none`,
    ...plan.addresses.map(renderOperation),
    `link set ${name} up`,
    ...routes.map(renderOperation),
    ...other.map(renderOperation),
  ]);
  write('up6', rules6.map(renderOperation));
  const remove = (operations: readonly Operation[]) =>
    operations
      .filter((operation) => removal(operation) !== undefined)
      .reverse()
      .map((operation) => renderOperation(operation).replace(' add ', ' del '));
  write('down', [`link del ${name}`, ...remove(other), ...remove(routes)]);
  write('down6', remove(rules6));
  const ipv4 = ipv4Settings(routeLocalnet);
  const sysctls = [
    `echo ${ipv6 ? 0 : 1} > /proc/sys/net/ipv6/conf/${name}/disable_ipv6`,
    `echo 0 > /proc/sys/net/ipv6/conf/${name}/accept_ra`,
    ...ipv4.map(([setting, value]) => `echo ${value} > /proc/sys/net/ipv4/conf/${name}/${setting}`),
  ];
  const nft = (file: string) => [`nft -f ${join(directory, file)}`];
  write('up.sh', [ip(directory, 'up'), ...sysctls, ip(directory, 'up6', '-6'), ...nft('up.nft')]);
  write('down.sh', [ip(directory, 'down'), ip(directory, 'down6', '-6'), ...nft('down.nft')]);
  write('up.nft', [...firewallTables(), ...firewallBase(), ...firewallAdditions(plan.firewall)]);
  write('down.nft', firewallRemoval());

  const link = { ...plan.link, ifindex: IFINDEX };
  const up = [
    configureLink({ ...link, group: LINK_GROUP, ipv4 }),
    ...plan.addresses.map((operation) => addition(operation, IFINDEX)),
    setLinkUp(link),
    ...[...routes, ...rules].map((operation) => addition(operation, IFINDEX)),
  ];
  const down = [deleteLink(link), ...[...routes, ...rules].reverse().flatMap((operation) => removal(operation) ?? [])];
  writeFileSync(join(directory, 'up.bin'), encode(up));
  writeFileSync(join(directory, 'down.bin'), encode(down));
}

function ip(directory: string, file: string, ...options: string[]): string {
  return ['ip', ...options, '-batch', join(directory, file)].join(' ');
}

/** For setup.c: chunks of a length and the messages of one send. */
function encode(requests: readonly NetlinkRequest[]): Buffer {
  const chunks: Buffer[] = [];
  for (let start = 0; start < requests.length; start += MESSAGES_PER_SEND) {
    const writer = new NetlinkWriter();
    const some = requests.slice(start, start + MESSAGES_PER_SEND);
    some.forEach((request, index) => {
      const last = index === some.length - 1;
      request.write(writer, NLM_F_REQUEST | (last ? NLM_F_ACK : 0), start + index + 1);
    });
    const length = Buffer.alloc(4);
    length.writeUInt32LE(writer.length);
    chunks.push(length, Buffer.from(writer.bytes()));
  }
  return Buffer.concat(chunks);
}
