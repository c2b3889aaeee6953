/**
 * Wrong configurations, as source text because JSON has neither undefined nor NaN, each with the code and what the message
 * must say after the documented sentence. `A` is a good address, `R(fields)` a route, `D(address, prefixLength)` a destination.
 */
export type BadValue = readonly [config: string, why: RegExp];

export const PRELUDE = `
const A = { address: { address: '10.0.0.5', family: 1 }, prefixLength: 24 };
const A6 = { address: { address: '2001:db8::5' }, prefixLength: 64 };
const D = (address, prefixLength, more) => ({ address: { address, ...more }, prefixLength });
const R = (fields) => ({ destination: D('198.51.100.0', 24), gateway: {}, ...fields });
const C = (fields) => ({ addresses: [A], ...fields });
const V4 = (first, middle, last) => [first, middle >> 8, middle & 255, last].join('.');
const many = (count, make) => Array.from({ length: count }, (_, index) => make(index));
`;

const NOT_A_LIST = [
  ['addresses', 'null', 'null'],
  ['routes', '{}', '.*'],
  ['dnsAddresses', '"1.1.1.1"', '"1\\.1\\.1\\.1"'],
  ['searchDomains', 'null', 'null'],
  ['trustedApplications', 'true', 'true'],
  ['blockedApplications', '1', '1'],
] as const;

const FLAGS = ['isIPv4Accepted', 'isIPv6Accepted', 'isLegacy', 'isBlocking', 'isMetered'];
const TEXT_LISTS = ['dnsAddresses', 'searchDomains', 'trustedApplications', 'blockedApplications'];

/** Wrong type or shape, or something inside `addresses[]` and `routes[]` that is no valid literal, prefix or family. */
export const TYPES_AND_SHAPES: readonly BadValue[] = [
  ['undefined', /^config: is missing$/],
  ['null', /^config: null is not an object$/],
  ['[]', /^config: .*is not an object$/],
  ['1', /^config: 1 is not an object$/],
  ['"config"', /^config: "config" is not an object$/],
  ['{}', /^config\.addresses: is missing$/],
  ['{ addresses: undefined }', /^config\.addresses: is missing$/],
  ...NOT_A_LIST.map(
    ([field, value, shown]): BadValue => [
      `C({ ${field}: ${value} })`,
      new RegExp(`^config\\.${field}: ${shown} is not an array$`),
    ],
  ),
  ...FLAGS.flatMap((field): BadValue[] => [
    [`C({ ${field}: 1 })`, new RegExp(`^config\\.${field}: 1 is not a boolean$`)],
    [`C({ ${field}: null })`, new RegExp(`^config\\.${field}: null is not a boolean$`)],
  ]),
  ...TEXT_LISTS.map(
    (field): BadValue => [`C({ ${field}: [7] })`, new RegExp(`^config\\.${field}\\[0\\]: 7 is not a string$`)],
  ),
  ['C({ mtu: "1400" })', /^config\.mtu: "1400" is not a number$/],
  ['C({ mtu: null })', /^config\.mtu: null is not a number$/],
  ['C({ mtu: 1400n })', /^config\.mtu: .*is not a number$/],
  ['C({ vpnId: 1 })', /^config\.vpnId: 1 is not a string$/],

  ['C({ addresses: [null] })', /^config\.addresses\[0\]: null is not an object$/],
  ['C({ addresses: [,] })', /^config\.addresses\[0\]: is missing$/],
  ['C({ addresses: [{ prefixLength: 24 }] })', /^config\.addresses\[0\]\.address: is missing$/],
  ['C({ addresses: [{ address: {}, prefixLength: 24 }] })', /^config\.addresses\[0\]\.address\.address: is missing$/],
  ['C({ addresses: [{ address: { address: "10.0.0.5" } }] })', /^config\.addresses\[0\]\.prefixLength: is missing$/],
  ['C({ addresses: [D("10.0.0.5", "24")] })', /\.prefixLength: "24" is not a number$/],
  ['C({ addresses: [D("10.0.0.5", 0)] })', /\.prefixLength: 0 is not 1\.\.32$/],
  ['C({ addresses: [D("10.0.0.5", 33)] })', /\.prefixLength: 33 is not 1\.\.32$/],
  ['C({ addresses: [D("10.0.0.5", 24.5)] })', /\.prefixLength: 24\.5 is not 1\.\.32$/],
  ['C({ addresses: [D("10.0.0.5", NaN)] })', /\.prefixLength: NaN is not 1\.\.32$/],
  ['C({ addresses: [D("2001:db8::5", 129)] })', /\.prefixLength: 129 is not 1\.\.128$/],
  ['C({ addresses: [D("2001:db8::5", 0)] })', /\.prefixLength: 0 is not 1\.\.128$/],
  ...[
    '10.0.0',
    '10.0.0.05',
    '10.0.0.256',
    '0x0a000005',
    '10.0.0.5/24',
    ' 10.0.0.5',
    'fe80::1%eth0',
    ':::',
    '',
    'host',
  ].map(
    (literal): BadValue => [`C({ addresses: [D(${JSON.stringify(literal)}, 24)] })`, /is not an IPv4 or IPv6 address$/],
  ),
  ['C({ addresses: [D("10.0.0.0", 24)] })', /is the network or broadcast address of its \/24$/],
  ['C({ addresses: [D("10.0.0.255", 24)] })', /is the network or broadcast address of its \/24$/],
  ['C({ addresses: [D("10.0.0.3", 30)] })', /is the network or broadcast address of its \/30$/],
  ['C({ addresses: [D("10.0.0.5", 24, { family: 2 })] })', /\.family: 2 \(IPv6\) does not agree with 10\.0\.0\.5$/],
  ['C({ addresses: [D("2001:db8::5", 64, { family: 1 })] })', /\.family: 1 \(IPv4\) does not agree/],
  ['C({ addresses: [D("2001:db8::5", 64, { family: 10 })] })', /\.family: 10 is not 1 \(IPv4\) or 2 \(IPv6\)$/],
  ['C({ addresses: [D("10.0.0.5", 24, { family: "1" })] })', /\.family: "1" is not a number$/],
  ['C({ addresses: [D("10.0.0.5", 24, { family: null })] })', /\.family: null is not a number$/],

  ['C({ routes: [R({ destination: undefined })] })', /^config\.routes\[0\]\.destination: is missing$/],
  ['C({ routes: [R({ gateway: undefined })] })', /^config\.routes\[0\]\.gateway: is missing$/],
  ['C({ routes: [R({ gateway: null })] })', /^config\.routes\[0\]\.gateway: null is not an object$/],
  ['C({ routes: [R({ gateway: "10.0.0.1" })] })', /^config\.routes\[0\]\.gateway: "10\.0\.0\.1" is not an object$/],
  ['C({ routes: [R({ gateway: { address: "x" } })] })', /^config\.routes\[0\]\.gateway\.address: "x" is not an IPv4/],
  [
    'C({ routes: [R({ gateway: { address: "2001:db8::1" } })] })',
    /is not an IPv4 address like the route's destination$/,
  ],
  ['C({ routes: [R({ hasGateway: 1 })] })', /^config\.routes\[0\]\.hasGateway: 1 is not a boolean$/],
  ['C({ routes: [R({ isDefaultRoute: "yes" })] })', /^config\.routes\[0\]\.isDefaultRoute: "yes" is not a boolean$/],
  ['C({ routes: [R({ isExcludedRoute: 0 })] })', /^config\.routes\[0\]\.isExcludedRoute: 0 is not a boolean$/],
  ['C({ routes: [R({ interface: 1 })] })', /^config\.routes\[0\]\.interface: 1 is not a string$/],
  ['C({ routes: [R({ destination: D("198.51.100.0", -1) })] })', /\.prefixLength: -1 is not 0\.\.32$/],
  [
    'C({ routes: [R(), R(), R(), R({ destination: D("198.51.100.0", 33) })] })',
    /^config\.routes\[3\]\.destination\.prefixLength: 33 is not 0\.\.32$/,
  ],
  ['C({ routes: [R({ destination: D("2001:db8::", 129) })] })', /\.prefixLength: 129 is not 0\.\.128$/],
  ['C({ routes: [R({ destination: D("198.51.100.0/24", 24) })] })', /is not an IPv4 or IPv6 address$/],
];

/** Well-typed but wrong. */
export const VALUES: readonly BadValue[] = [
  ['{ addresses: [] }', /^config\.addresses: is empty; a VPN needs an address$/],
  [
    '{ addresses: [A, A] }',
    /^config\.addresses\[1\]\.address\.address: 10\.0\.0\.5 is config\.addresses\[0\] already$/,
  ],
  ['{ addresses: [A6, D("2001:DB8:0::5", 48)] }', /2001:db8::5 is config\.addresses\[0\] already$/],
  ['{ addresses: [D("127.0.0.1", 8)] }', /cannot be the address of a host$/],
  ...['575', '65536', '1400.5', 'NaN', 'Infinity', '-1500', '0'].map(
    (mtu): BadValue => [`C({ mtu: ${mtu} })`, /^config\.mtu: \S+ is not an integer in 576\.\.65535$/],
  ),
  ['{ addresses: [A6], mtu: 1279 }', /^config\.mtu: 1279 is under 1280, which IPv6 needs$/],
  ['C({ isIPv6Accepted: true, mtu: 1279 })', /^config\.mtu: 1279 is under 1280/],
  [
    'C({ trustedApplications: ["uid:2001"], blockedApplications: ["uid:2002"] })',
    /^config\.blockedApplications: has entries although config\.trustedApplications has some/,
  ],
  ['C({ trustedApplications: ["com.example.none"] })', /^config\.trustedApplications\[0\]: .*resolves to nothing/],
  ['C({ blockedApplications: ["user:nobody-like-this"] })', /^config\.blockedApplications\[0\]: .*there is no user/],
  ['C({ trustedApplications: ["cgroup:/no/such"] })', /there is no cgroup/],
  ['C({ trustedApplications: ["uid:2001", ""] })', /^config\.trustedApplications\[1\]: is empty$/],
  ['C({ isIPv4Accepted: false })', /10\.0\.0\.5 is of a family that config\.isIPv4Accepted does not accept$/],
  ['{ addresses: [A, A6], isIPv6Accepted: false }', /^config\.addresses\[1\].*config\.isIPv6Accepted does not accept$/],
  ['C({ routes: [R({ destination: D("2001:db8::", 32) })] })', /^config\.routes\[0\]\.destination: is IPv6, but/],
  [
    '{ addresses: [A6], isIPv4Accepted: false, routes: [R()] }',
    /^config\.routes\[0\]\.destination: is IPv4, but config\.isIPv4Accepted is false$/,
  ],
  [
    'C({ routes: [R({ gateway: { address: "192.0.2.1" } })] })',
    /192\.0\.2\.1 is in the prefix of none of config\.addresses$/,
  ],
  [
    'C({ routes: [R(), R({ gateway: { address: "10.0.0.1" } })] })',
    /^config\.routes\[1\]: 198\.51\.100\.0\/24 has another gateway or exclusion in config\.routes\[0\]$/,
  ],
  ['C({ routes: [R(), R({ isExcludedRoute: true })] })', /has another gateway or exclusion in config\.routes\[0\]$/],
  ['C({ routes: [R({ interface: "eth0" })] })', /^config\.routes\[0\]\.interface: "eth0" is not this VPN's interface/],
  [
    'C({ dnsAddresses: ["dns.example"] })',
    /^config\.dnsAddresses\[0\]: "dns\.example" is not an IPv4 or IPv6 address$/,
  ],
  ['C({ dnsAddresses: ["10.0.0.1", "10.0.0.01"] })', /^config\.dnsAddresses\[1\]: /],
  ['C({ dnsAddresses: ["0.0.0.0"] })', /cannot be the address of a DNS server$/],
  ...['a b', '', 'a..b', '10.0.0.1', `${'a'.repeat(64)}.example`, 'é.example'].map(
    (domain): BadValue => [`C({ searchDomains: [${JSON.stringify(domain)}] })`, /^config\.searchDomains\[0\]: /],
  ),
  ['C({ dnsAddresses: many(65, (n) => "10.0.1." + (n + 1)) })', /^config\.dnsAddresses: has more than 64 entries$/],
  ['C({ searchDomains: many(65, (n) => "d" + n + ".example") })', /^config\.searchDomains: has more than 64 entries$/],
  [
    'C({ trustedApplications: many(257, (n) => "uid:" + n) })',
    /^config\.trustedApplications: has more than 256 entries$/,
  ],
  [
    'C({ blockedApplications: many(257, (n) => "uid:" + n) })',
    /^config\.blockedApplications: has more than 256 entries$/,
  ],
  ['{ addresses: many(2001, (n) => D(V4(10, n, 9), 16)) }', /^config\.addresses: has more than 2000 entries$/],
  [
    'C({ routes: many(10001, (n) => R({ destination: D(V4(20, n, 0), 24) })) })',
    /^config\.routes: has more than 10000 entries$/,
  ],
];
