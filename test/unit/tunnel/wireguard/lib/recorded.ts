/**
 * Datagrams of two real handshakes with wireguard-go 0.0.20220316 (Debian 12), and of its answer under load.
 *
 * Recorded in a network namespace of its own: wireguard-go with the private key, preshared key and tunnel address 10.9.0.1 below
 * on 127.0.0.1:6666, configured with `wg set`; at 127.0.0.1:5555 a UDP socket whose answers were made with src/tunnel/wireguard,
 * with the fixed ephemeral keys, random numbers and wall clock below in place of fresh ones. wireguard-go accepted all of
 * "ours" here: it went on as the paper says, which is the next datagram in each list.
 */
function bytes(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex, 'hex'));
}

/** 32 bytes that count up from `first`. */
function counting(first: number): Uint8Array {
  return Uint8Array.from({ length: 32 }, (_, index) => first + index);
}

export const theirPrivateKey = counting(0x20);
export const ourPrivateKey = counting(0x40);
export const presharedKey = counting(0x60);

/** The sockaddr_in6 of 127.0.0.1:6666 on a dual-stack socket. */
export const theirAddress = bytes('0a00' + '1a0a' + '00000000' + '00000000000000000000ffff7f000001' + '00000000');

/** wireguard-go is the initiator, with persistent-keepalive 1. Its first initiation is answered by a cookie. */
export const theyInitiate = {
  initiation: bytes(
    '010000002790433bdec632856d6ac74455a6230231348d37e546fae097d1d3ebc84affe80e669229e960c304780487ad' +
      'f7bc7e619014aa204f9b3998c7a03069fedd0109467d0c24dc1bc2c187abd3c377795d3a051c10bc3df1a621065f2e30' +
      '1c13cbd883f4471757ba6437cf60b59b3fb1fa064b2e8c2c41b9dcd7d8fededec6bbe99f000000000000000000000000' +
      '00000000',
  ),
  cookieNonce: bytes('0102030405060708090a0b0c0d0e0f101112131415161718'),
  cookieSecret: counting(0xc0),
  ourCookieReply: bytes(
    '030000002790433b0102030405060708090a0b0c0d0e0f101112131415161718f965962d6a99a362322ca0ec8aac1133' +
      '4f9031e0e00f0cdc988278ce0f75248c',
  ),
  /** 5 s later. */
  initiationWithMac2: bytes(
    '010000002bf050bac4235a266f045614a10dcbec1a0839ca7a4fae9e24ca96f10461298eeb999d7c6e74d9948876ff42' +
      '7b440a907b3e625450ab11f939b382ae7a8c6afcf655e9c07c96559202d9b96725f6d741c3af1cfa3edadfea55faf0f2' +
      '2bd5d6129e877883ca811a41a0e40120b4f6a1e03ef444821a88217ad1211279f9c660d4f8d38ac69c31855d0e637bdd' +
      '13310416',
  ),
  timestamp: bytes('400000006b0403d935000000'),
  /** Unix time in seconds when `initiationWithMac2` arrived, give or take 10. */
  arrivedAtS: 1795425231,
  theirIndex: 0xba50f02b,
  ourIndex: 0x01020304,
  ourEphemeral: counting(0x80),
  ourResponse: bytes(
    '02000000040302012bf050ba493e82fc74464a59268817623d2053c5eb8e2cc4a988b4fee179ec6b010d531d62a2cbff' +
      '60627c9a5ea37391ea74ae6f65b842b1651f1e3d45e38199ed0cf5f700000000000000000000000000000000',
  ),
  keepalive: bytes('0400000004030201000000000000000025f14965d02df42e238491413ec2d20a'),
};

/** Ours is the initiator, at 2026-01-01T00:00:00.500Z. Then a program behind wireguard-go sent "hello" by UDP to 10.9.0.2. */
export const weInitiate = {
  wallClockMs: Date.UTC(2026, 0, 1, 0, 0, 0, 500),
  ourIndex: 0x0a0b0c0d,
  ourEphemeral: counting(0xa0),
  ourInitiation: bytes(
    '010000000d0c0b0a605a725d2a4adfeeb1a29e17edd621c1b7593ee8cdbc44ac6c4ab6e2f805d23c8f093b5353184487' +
      'ea3a00286b0cf6836dbf40bacff0638304795e70274f59ebd0814c5ec37f981aef9c66b9d81854f0018584a383d7fb8d' +
      '847d64320683f719d08928859edd947e8d00dc5d50c6dcd69f8013d3947936b877201e6c000000000000000000000000' +
      '00000000',
  ),
  response: bytes(
    '0200000064269be70d0c0b0a3ed220946407f2c104af67dedcc854b0de8bb0ae0595e2102781ee38df395841af553169' +
      '9f70ab108d8c466bc6cce50662d1dbde285a8b1f224a740c70e69b4e00000000000000000000000000000000',
  ),
  theirIndex: 0xe79b2664,
  ourKeepalive: bytes('0400000064269be7000000000000000056102959b9e940d413bd06de9f23e1c9'),
  packet: bytes(
    '040000000d0c0b0a0000000000000000c4ff7ec4e1783366a7bbda5c8923f8a60d400c07db4c25f018b84f0fd722be54' +
      'cf7c8dca1cdab2de1a8fd5fd232330c6316459644cc1b5db82282794245b239e',
  ),
  packetOpened: bytes(
    '450000218a0e400040119ca90a0900010a0900028cc60007000d1b2068656c6c6f000000000000000000000000000000',
  ),
};

/**
 * 1,500 initiations of ours at once, so that wireguard-go was under load. It answered this one with this cookie. The cookie
 * made mac2 of the second initiation, which it answered with a response, still under load: one without mac2 in between got
 * a cookie.
 */
export const theyAreUnderLoad = {
  ourInitiation: bytes(
    '0100000053000000605a725d2a4adfeeb1a29e17edd621c1b7593ee8cdbc44ac6c4ab6e2f805d23c8f093b5353184487' +
      'ea3a00286b0cf6836dbf40bacff0638304795e70274f59ebd0814c5ec37f981aef9c66b9d81854f0018584a38186415c' +
      'b17d643275642f139b862f3f325b4cc8105b61a33d3055a20de63b7b0ebf740145548cb1000000000000000000000000' +
      '00000000',
  ),
  cookieReply: bytes(
    '03000000530000008a754675c0a4e9eaebbfd505629acb707748359c08fc87014f63cf51a6b2e47795e41f2b5c46284d' +
      'f6c9696bd585d505729345b086fda08d',
  ),
  ourInitiationWithMac2: bytes(
    '0100000077777777605a725d2a4adfeeb1a29e17edd621c1b7593ee8cdbc44ac6c4ab6e2f805d23c8f093b5353184487' +
      'ea3a00286b0cf6836dbf40bacff0638304795e70274f59ebd0814c5ec37f981aef9c66b9d81854f0018584a381864690' +
      'bb7d64323ec2da47d5831d36d9c05f254ff2bd998de9306aea68d81df0a72eb4eb9f4e02e0033a40230c3d0fe0a33279' +
      'c7222577',
  ),
};
