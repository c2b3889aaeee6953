import type { ResolverRequest } from '../../../../../src/host/resolver/request.js';

export const REQUEST: ResolverRequest = {
  link: { name: 'vpn-tun0', ifindex: 7 },
  servers: ['10.9.0.1', 'fd09::1', '10.9.0.11', '10.9.0.12'],
  searchDomains: ['corp.example', 'lab.example'],
  exclusive: true,
};
