/** A plan as the `ip` and `nft` commands an administrator would type: for golden tests, for the demo, for docs. */
import { IPV6 } from '../model/vpn-types.js';
import { ipv4Settings } from './link-settings.js';
import { LINK_GROUP } from './numbers.js';
import type { Operation } from './operation.js';
import type { Plan } from './plan.js';
import { firewallAdditions } from './plan-firewall.js';
import { loopbackAnswers } from './plan-outside-dns.js';
import { groupsMetric } from './vnic.js';

const hex = (value: number): string => `0x${(value >>> 0).toString(16)}`;

/** One operation in the syntax of ip(8), without the word `ip` and its family, so that it also goes through `ip -batch`. */
export function renderOperation(operation: Operation): string {
  switch (operation.kind) {
    case 'address': {
      const { address, prefixLength, dev, family } = operation;
      return `addr add ${address}/${prefixLength} dev ${dev} noprefixroute${family === IPV6 ? ' nodad' : ''}`;
    }
    case 'route': {
      const { type, destination, prefixLength, table, protocol, metric, dev, gateway, source } = operation;
      const words = ['route add', ...(type === 'unicast' ? [] : [type]), `${destination}/${prefixLength}`];
      if (gateway !== undefined) words.push(`via ${gateway}`);
      if (dev !== undefined) words.push(`dev ${dev}`);
      words.push(`table ${table}`, `protocol ${protocol}`);
      if (metric !== undefined) words.push(`metric ${metric}`);
      if (source !== undefined) words.push(`src ${source}`);
      if (gateway !== undefined) words.push('onlink');
      return words.join(' ');
    }
    case 'rule': {
      const { priority, action, table, target, fwmark, uidRange, iif, from, fromPrefixLength } = operation;
      const { protocol, sourcePorts, destinationPorts, suppressPrefixLength } = operation;
      const words = [`rule add pref ${priority}`, ...(operation.isInverted ? ['not'] : [])];
      if (from !== undefined) words.push(`from ${from}${fromPrefixLength === undefined ? '' : `/${fromPrefixLength}`}`);
      if (iif !== undefined) words.push(`iif ${iif}`);
      if (fwmark !== undefined) words.push(`fwmark ${hex(fwmark.value)}/${hex(fwmark.mask)}`);
      if (uidRange !== undefined) words.push(`uidrange ${uidRange.first}-${uidRange.last}`);
      if (protocol !== undefined) words.push(`ipproto ${protocol}`);
      if (sourcePorts !== undefined) words.push(`sport ${portRange(sourcePorts)}`);
      if (destinationPorts !== undefined) words.push(`dport ${portRange(destinationPorts)}`);
      if (action === 'lookup') words.push(`lookup ${table}`);
      else if (action === 'goto') words.push(`goto ${target}`);
      else words.push(action);
      if (suppressPrefixLength !== undefined) words.push(`suppress_prefixlength ${suppressPrefixLength}`);
      words.push('protocol kernel');
      return words.join(' ');
    }
  }
}

function portRange({ first, last }: { first: number; last: number }): string {
  return first === last ? `${first}` : `${first}-${last}`;
}

function withFamily(operation: Operation): string {
  return `ip -${operation.family === IPV6 ? 6 : 4} ${renderOperation(operation)}`;
}

/** The whole plan in the order it is applied. */
export function renderPlan(plan: Plan): string {
  const { link } = plan;
  const lines = [
    `ip tuntap add ${link.name} mode tun${link.vnetHeader ? ' vnet_hdr' : ''}`,
    `sysctl net.ipv6.conf.${link.name}.disable_ipv6=${link.ipv6 ? 0 : 1}`,
    `sysctl net.ipv6.conf.${link.name}.accept_ra=0`,
    `ip link set ${link.name} mtu ${link.mtu} group ${LINK_GROUP} multicast off addrgenmode none`,
    ...ipv4Settings(link.routeLocalnet).map(([key, value]) => `sysctl net.ipv4.conf.${link.name}.${key}=${value}`),
    ...plan.addresses.map(withFamily),
    `ip link set ${link.name} up`,
    ...(link.ipv6
      ? [
          `ip -6 route add multicast ff00::/8 dev ${link.name} table local protocol kernel metric ${groupsMetric(plan.slot)}`,
          `ip -6 route del multicast ff00::/8 dev ${link.name} table local protocol kernel metric 256`,
        ]
      : []),
    ...plan.routes.map(withFamily),
    ...[...(plan.firewall.loopbackAnswers ? loopbackAnswers() : []), ...firewallAdditions(plan.firewall)].map(
      (command) => `nft ${command}`,
    ),
    ...plan.cgroupMarks.map(
      ({ cgroup, mark, uid }) => `bpf mark sockets of ${cgroup}${uid === undefined ? '' : ` uid ${uid}`} ${hex(mark)}`,
    ),
    ...plan.applicationMarks.map(
      ({ id, mark, uid }) =>
        `bpf mark sockets of application ${id}${uid === undefined ? '' : ` uid ${uid}`} ${hex(mark)}`,
    ),
    ...plan.sectionRules.map(withFamily),
    ...plan.rules.map(withFamily),
  ];
  return `${lines.join('\n')}\n`;
}

export function renderOperations(operations: readonly Operation[]): string {
  return `${operations.map(withFamily).join('\n')}\n`;
}
